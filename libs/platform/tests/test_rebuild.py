from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from vitascope_core.job import EndState, FileRecord, JobEnd, Usage
from vitascope_core.plain import plain
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.rebuild import rebuild


@pytest.fixture
def jobs() -> JobStore:
    return JobStore(MemoryKeyValue())


@pytest.fixture
def finished(store, spec):
    """Store what an upload stores: files, then the manifest."""

    async def put(number: int = 1, prefix: str = "", token: str = "tok", **changes):
        job = replace(spec, id=f"video_{number}", owner="anna", fps=Fraction(24000, 1001))
        key = f"{prefix}{job.id}/{token}/0.mp4"
        await store.put(key, b"mp4")
        file = FileRecord(0, "video", key, "video/mp4", 3, 64, 64, 9, Fraction(24000, 1001))
        usage = Usage({"denoise": 1.5}, 0.5, 2, 9, 3)
        end = replace(
            JobEnd(EndState.COMPLETED, token, 1_700_000_000_000 + number, files=(file,), usage=usage), **changes
        )
        content = {"schema_version": 2, "spec": plain(job), "end": plain(end)}
        await store.put(f"{prefix}{job.id}/{token}/manifest.json", json.dumps(content).encode())
        return job, end

    return put


async def test_lost_records_come_back_as_they_were(store, jobs, finished) -> None:
    made = [await finished(number, "studio/") for number in (1, 2)]
    lines: list[str] = []
    done = await rebuild(jobs, store, "studio/", say=lines.append)

    assert done.rebuilt == ["video_1", "video_2"]
    assert lines == ["video_1: rebuilt, 1 files", "video_2: rebuilt, 1 files"]
    for job, end in made:
        assert (await jobs.spec(job.id), await jobs.end(job.id)) == (job, end)


async def test_a_second_run_changes_nothing(store, jobs, finished) -> None:
    await finished()
    await rebuild(jobs, store)
    before = await jobs.all()
    done = await rebuild(jobs, store)

    assert (done.rebuilt, done.left_alone, await jobs.all()) == ([], ["video_1"], before)


async def test_a_dry_run_only_says_what_it_would_do(store, jobs, finished) -> None:
    await finished()
    lines: list[str] = []
    done = await rebuild(jobs, store, dry_run=True, say=lines.append)

    assert (done.rebuilt, lines, await jobs.all()) == (["video_1"], ["video_1: would be rebuilt, 1 files"], [])


async def test_deleted_and_failed_jobs_are_left_alone(store, jobs, finished) -> None:
    await finished()
    await jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "other", 1))
    done = await rebuild(jobs, store)

    assert (done.left_alone, await jobs.spec("video_1")) == (["video_1"], None)


async def test_an_interrupted_rebuild_is_finished(store, jobs, finished) -> None:
    job, end = await finished()
    await jobs.create_spec(job)
    done = await rebuild(jobs, store)

    assert (done.rebuilt, await jobs.end(job.id)) == (["video_1"], end)


async def test_another_job_with_the_same_id_is_left_alone(store, jobs, finished) -> None:
    job, _ = await finished()
    await jobs.create_spec(replace(job, owner="ben"))
    done = await rebuild(jobs, store)

    assert (done.left_alone, await jobs.end(job.id)) == (["video_1"], None)


async def test_of_two_complete_results_the_later_stands(store, jobs, finished) -> None:
    await finished(1, token="early", at_ms=5)
    _, late = await finished(1, token="late", at_ms=6)
    done = await rebuild(jobs, store)

    assert (done.rebuilt, (await jobs.end("video_1")).token) == (["video_1"], late.token)


async def test_results_that_moved_are_found_where_they_are(store, jobs, finished) -> None:
    await finished(1, "old/")
    for info in await store.list("old/"):
        await store.put(f"new/{info.key.removeprefix('old/')}", await store.get(info.key))
    await rebuild(jobs, store, "new/")

    assert [file.key for file in (await jobs.end("video_1")).files] == ["new/video_1/tok/0.mp4"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"{", "does not hold a spec and an end"),
        (lambda content: b"[]", "does not hold a spec and an end"),
        (lambda content: b"\xff\xfe", "does not hold a spec and an end"),
        (lambda content: json.dumps({"schema_version": 1, "job": {}}).encode(), "does not hold a spec and an end"),
        (lambda content: content.replace(b'"created_ms"', b'"made_ms"'), "does not hold a spec and an end"),
        (lambda content: content.replace(b"video_1", b"video_9"), "belongs to another folder"),
        (lambda content: content.replace(b'"completed"', b'"failed"'), "belongs to another folder"),
        (lambda content: content.replace(b'"size": 3', b'"size": 4'), "0.mp4 is missing or has another size"),
    ],
)
async def test_a_damaged_manifest_is_reported_and_hides_no_other(store, jobs, finished, damage, message) -> None:
    await finished(1)
    await finished(2)
    key = "video_1/tok/manifest.json"
    await store.put(key, damage(await store.get(key)))
    lines: list[str] = []
    done = await rebuild(jobs, store, say=lines.append)

    assert (done.damaged, done.rebuilt) == ([key], ["video_2"])
    assert message in lines[0]
    assert await jobs.spec("video_1") is None


async def test_files_without_a_manifest_are_no_result(store, jobs) -> None:
    await store.put("video_1/tok/0.mp4", b"half")
    await store.put("manifest.json", b"{}")
    await store.put("a/b/c/manifest.json", b"{}")
    done = await rebuild(jobs, store)

    assert (done.rebuilt, done.damaged, await jobs.all()) == ([], [], [])


def test_the_command_works_on_real_servers(broker, s3, spec) -> None:
    name = secrets.token_hex(4)
    env = {
        **os.environ,
        "VITASCOPE_NATS_URL": broker.url,
        "VITASCOPE_NATS_PREFIX": f"t{name}",
        "VITASCOPE_S3_ENDPOINT": s3.endpoint,
        "VITASCOPE_S3_ACCESS_KEY": s3.access_key,
        "VITASCOPE_S3_SECRET_KEY": s3.secret_key,
        "VITASCOPE_S3_FRAMES_BUCKET": f"frames-{name}",
        "VITASCOPE_S3_RESULTS_BUCKET": f"results-{name}",
        "VITASCOPE_S3_RESULT_PREFIX": "studio",
    }

    def run(module: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"vitascope_platform.{module}", *options]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert run("bootstrap", "--pool", "p").returncode == 0
    end = JobEnd(EndState.COMPLETED, "tok", 1_700_000_000_000)
    content = json.dumps({"schema_version": 2, "spec": plain(spec), "end": plain(end)}).encode()
    key = "studio/video_1/tok/manifest.json"
    s3.client().put_object(f"results-{name}", key, io.BytesIO(content), len(content))
    answers = [run("rebuild", *options) for options in (["--dry-run"], [], [])]

    assert [answer.stdout.splitlines()[-1] for answer in answers] == [
        "1 would be rebuilt, 0 left alone, 0 damaged",
        "1 rebuilt, 0 left alone, 0 damaged",
        "0 rebuilt, 1 left alone, 0 damaged",
    ]
    assert [answer.returncode for answer in answers] == [0, 0, 0]
