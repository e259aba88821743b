"""``python -m vitascope_platform.rebuild``: bring back jobs whose records are lost, from their manifests.

For when the broker's storage is gone and the results are not. Jobs that have an end are left alone; run twice it
changes nothing. Unfinished jobs left no manifest, so they stay lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from vitascope_core.errors import Conflict, InvalidSettings, ObjectMissing, Outage, VitascopeError
from vitascope_core.job import EndState, JobEnd, JobSpec
from vitascope_core.ports import ObjectInfo, ObjectStore
from vitascope_platform.environment import ServiceSettings, read_settings
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.logs import log_to_stderr
from vitascope_platform.nats_connection import nats_connected
from vitascope_platform.records import BadRecord, from_json
from vitascope_platform.store_s3 import S3Store

MANIFEST = "manifest.json"

_FOLDER = re.compile(r"(?P<job>[A-Za-z0-9_-]+)/(?P<token>[A-Za-z0-9_-]+)/" + re.escape(MANIFEST))


class DamagedManifest(VitascopeError):
    """A manifest cannot be read, or does not fit what lies beside it."""

    code = "damaged_manifest"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says of its job."""

    spec: JobSpec
    end: JobEnd


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild did: job ids, and for damaged manifests their keys."""

    rebuilt: list[str] = field(default_factory=list)
    left_alone: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


async def rebuild(
    jobs: JobStore,
    results: ObjectStore,
    prefix: str = "",
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """Create the records of every job that has a manifest but no end.

    Args:
        jobs: Where records go.
        results: Where manifests and files are.
        prefix: Of the installation's results, "" or ending with a slash.
        dry_run: Only look.
        say: Gets a line for each job.

    Raises:
        Outage: Records or results are away; what was done stays, and the next run does the rest.
    """
    done = Rebuilt()
    found = await results.list(prefix)
    for job_id, tokens in _folders(found, prefix).items():
        if await jobs.end(job_id) is not None:
            done.left_alone.append(job_id)
            say(f"{job_id}: left alone, it has its records")
            continue
        # A worker that died before it could end the job has left its files beside those of its successor.
        readable = []
        for token in tokens:
            folder = f"{prefix}{job_id}/{token}/"
            try:
                readable.append(await _read(results, folder, job_id, token, found))
            except DamagedManifest as error:
                done.damaged.append(f"{folder}{MANIFEST}")
                say(f"{job_id}: damaged manifest {folder}{MANIFEST}: {error}")
        if not readable:
            continue
        manifest = max(readable, key=lambda each: each.end.at_ms)
        if not dry_run and not await _create(jobs, manifest):
            done.left_alone.append(job_id)
            say(f"{job_id}: left alone, another job has this id")
        else:
            done.rebuilt.append(job_id)
            say(f"{job_id}: {'would be rebuilt' if dry_run else 'rebuilt'}, {len(manifest.end.files)} files")
    return done


async def _create(jobs: JobStore, manifest: Manifest) -> bool:
    """Create both records and return whether the job is now the manifest's."""
    try:
        # The spec may be there: of a rebuild that was interrupted here, or of an upload that was. The files are
        # complete, so ending the job is right for both.
        await jobs.create_spec(manifest.spec)
    except Conflict:
        if await jobs.spec(manifest.spec.id) != manifest.spec:
            return False
    return (await jobs.create_end(manifest.spec.id, manifest.end)).token == manifest.end.token


async def _read(results: ObjectStore, folder: str, job_id: str, token: str, found: Iterable[ObjectInfo]) -> Manifest:
    try:
        data = await results.get(f"{folder}{MANIFEST}")
    except ObjectMissing as error:
        raise DamagedManifest("it was deleted just now") from error
    try:
        content = json.loads(data)
        spec = from_json(JobSpec, json.dumps(content["spec"]).encode())
        end = from_json(JobEnd, json.dumps(content["end"]).encode())
    except (ValueError, KeyError, TypeError, BadRecord) as error:
        raise DamagedManifest(f"it does not hold a spec and an end ({type(error).__name__}: {error})"[:300]) from error
    if (spec.id, end.token, end.state) != (job_id, token, EndState.COMPLETED):
        raise DamagedManifest("it belongs to another folder")
    # Where the files are now: the bucket may have been copied to another prefix.
    files = tuple(replace(file, key=f"{folder}{file.key.rpartition('/')[2]}") for file in end.files)
    sizes = {info.key: info.size for info in found if info.key.startswith(folder)}
    for file in files:
        if sizes.get(file.key) != file.size:
            raise DamagedManifest(f"{file.key} is missing or has another size")
    return Manifest(spec, replace(end, files=files))


def _folders(found: Iterable[ObjectInfo], prefix: str) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for info in found:
        if match := _FOLDER.fullmatch(info.key.removeprefix(prefix)):
            folders.setdefault(match["job"], []).append(match["token"])
    return folders


async def _run(settings: ServiceSettings, *, dry_run: bool) -> Rebuilt:
    results = S3Store(settings.s3.results)
    try:
        async with nats_connected(settings.nats, "rebuild") as connection:
            jobs = JobStore(NatsKeyValue(connection, "jobs"))
            return await rebuild(jobs, results, settings.s3.result_prefix, dry_run=dry_run, say=_say)
    finally:
        results.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 1 if a manifest is damaged or something is away, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m vitascope_platform.rebuild",
        description="Bring back finished jobs whose records are lost, from the manifests beside their results. "
        "Addresses and credentials come from the services' environment: VITASCOPE_NATS_*, VITASCOPE_S3_*.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    options = parser.parse_args(arguments)
    log_to_stderr("info")
    try:
        done = asyncio.run(_run(read_settings(ServiceSettings), dry_run=options.dry_run))
    except (InvalidSettings, Outage) as error:
        sys.stderr.write(f"rebuild: {error}\n")
        return 1
    would = "would be " if options.dry_run else ""
    _say(f"{len(done.rebuilt)} {would}rebuilt, {len(done.left_alone)} left alone, {len(done.damaged)} damaged")
    return 1 if done.damaged else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
