"""What is there when all is over, as plain facts for the invariants."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
from minio import Minio

from tools.cluster.cluster import Cluster
from tools.nemesis.crew import Crew
from tools.nemesis.faults import FRAMES
from tools.nemesis.history import Event, History
from tools.nemesis.load import PROMPT
from tools.nemesis.records import Records
from tools.nemesis.schedule import Request, Schedule
from vitascope_gateway.ledger import created_ms_of

RESULTS = "vitascope-results"
MANIFEST = "manifest.json"
_READERS = 8

Files = Mapping[str, str]
"""Digest of every file of a job, by its name; the manifest, which holds ids and times, left out."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is left of one job.

    Attributes:
        request: What it was made by.
        state: Of its end: "completed", "failed", "cancelled"; "" if it has none.
        known: Whether its spec is still there.
        tokens: Everything it has in the results store, by token.
        shown: Status with which each gateway answers a look at it (a video).
    """

    id: str
    request: Request
    state: str = ""
    code: str = ""
    token: str = ""
    known: bool = True
    created_ms: int = 0
    ended_ms: int = 0
    attempts: int = 0
    tokens: Mapping[str, Files] = field(default_factory=dict)
    shown: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Aftermath:
    """All that the invariants look at.

    Attributes:
        references: Files of the undisturbed jobs, by form and seed.
        objects: What is left under ``jobs/``.
        messages: Jobs that have messages.
        records: Jobs that have records of their source or of chunks.
        events: See `tools.nemesis.history`.
        dead: Processes that should live and do not.
        gateway_peak_bytes: The most memory that a gateway held.
        tracebacks: Where services logged errors that no code was written for.
    """

    schedule: Schedule
    jobs: tuple[JobFacts, ...]
    references: Mapping[tuple[str, int], Files]
    objects: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    dead: tuple[str, ...] = ()
    gateway_peak_bytes: int = 0
    tracebacks: tuple[str, ...] = ()


async def aftermath_of(
    schedule: Schedule,
    references: Mapping[tuple[str, int], Files],
    cluster: Cluster,
    crew: Crew,
    records: Records,
    history: History,
) -> Aftermath:
    """Look at everything."""
    store = cluster.s3.client()
    results = await asyncio.to_thread(result_files, store)
    all_kept = await records.all()
    requests = _requests(schedule, records, history)
    found = [(job, kept, requests[job]) for job, kept in all_kept.items() if job in requests]
    shown = await _shown(cluster, [job for job, _, _ in found])
    jobs = [
        JobFacts(
            id=job,
            request=request,
            state=str(kept.end.state) if kept.end else "",
            code=kept.end.code if kept.end else "",
            token=kept.end.token if kept.end else "",
            known=kept.spec is not None,
            created_ms=created_ms_of(job) or 0,
            ended_ms=kept.end.at_ms if kept.end else 0,
            attempts=kept.end.usage.attempts if kept.end else 0,
            tokens=results.get(job, {}),
            shown=shown.get(job, ()),
        )
        for job, kept, request in found
    ]
    return Aftermath(
        schedule,
        tuple(jobs),
        references,
        objects=tuple(await asyncio.to_thread(_keys, store, FRAMES, "jobs/")),
        messages=tuple(sorted(await records.queued())),
        records=tuple(job for job, kept in all_kept.items() if kept.progress),
        events=tuple(history.events),
        dead=tuple(process.name for process in cluster.processes() if not process.alive),
        gateway_peak_bytes=crew.gateway_peak_bytes,
    )


async def leftovers(cluster: Cluster, records: Records) -> dict[str, list[str]]:
    """Return what keeps the cluster from being at rest: jobs without end, objects, messages, records, losers' files."""
    store, all_kept = cluster.s3.client(), await records.all()
    tokens = {tuple(key.split("/")[:2]) for key in await asyncio.to_thread(_result_keys, store)}
    ends = {job: kept.end for job, kept in all_kept.items()}
    left = {
        "jobs": [job for job, end in ends.items() if end is None],
        "objects": await asyncio.to_thread(_keys, store, FRAMES, "jobs/"),
        "messages": sorted(await records.queued()),
        "records": [job for job, kept in all_kept.items() if kept.progress],
        "losers": [f"{job}/{token}" for job, token in tokens if (end := ends.get(job)) is None or end.token != token],
    }
    return {name: items for name, items in left.items() if items}


def result_files(store: Minio, job: str = "") -> dict[str, dict[str, Files]]:
    """Return the digests of all result files, by job and token; of one job if it is named."""
    keys = _result_keys(store, f"{job}/" if job else "")
    with ThreadPoolExecutor(_READERS) as readers:
        digests = readers.map(lambda key: _digest(store, key), keys)
        found: dict[str, dict[str, dict[str, str]]] = {}
        for key, digest in zip(keys, digests, strict=True):
            owner, token, name = key.split("/", 2)
            files = found.setdefault(owner, {}).setdefault(token, {})
            if name != MANIFEST:
                files[name] = digest
    return {owner: dict(tokens) for owner, tokens in found.items()}


def _digest(store: Minio, key: str) -> str:
    answer = store.get_object(RESULTS, key)
    try:
        return hashlib.sha256(answer.read()).hexdigest()
    finally:
        answer.close()
        answer.release_conn()


def _result_keys(store: Minio, prefix: str = "") -> list[str]:
    """Return the files of jobs; a process that is killed as it tries the store leaves a trial object beside them."""
    return [key for key in _keys(store, RESULTS, prefix) if created_ms_of(key.partition("/")[0]) is not None]


def _keys(store: Minio, bucket: str, prefix: str) -> list[str]:
    return sorted(str(info.object_name) for info in store.list_objects(bucket, prefix=prefix, recursive=True))


def _requests(schedule: Schedule, records: Records, history: History) -> dict[str, Request]:
    """Return by what each job was made, as its client knows, or as its prompt says if that never heard of it."""
    made = {str(event["job"]): int(event["number"]) for event in history.of("accepted")}
    for job, spec in records.specs.items():
        word, _, number = spec.denoise.prompt.partition(" ")
        if word == PROMPT:
            made[job] = int(number)
    return {job: schedule.requests[number] for job, number in made.items()}


async def _shown(cluster: Cluster, jobs: list[str]) -> dict[str, tuple[int, ...]]:
    """Return how each gateway answers a look at each video."""
    shown = dict[str, tuple[int, ...]]()
    async with httpx.AsyncClient(timeout=30) as client:
        for job in filter(lambda name: name.startswith("video_"), jobs):
            answers = await asyncio.gather(*(client.get(f"{url}/v1/videos/{job}") for url in cluster.gateways))
            shown[job] = tuple(answer.status_code for answer in answers)
    return shown
