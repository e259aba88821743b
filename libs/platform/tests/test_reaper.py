"""The reaper: jobs without messages, past deadlines, orphaned objects, expired results."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stage_bench import StageBench

from vitascope_core.job import EndState, JobEnd, JobSpec, SourceRecord, SourceState
from vitascope_core.plan import StageName
from vitascope_platform.clock import ManualClock
from vitascope_platform.reaper import MAX_LOOKED_AFTER, Reaper
from vitascope_platform.removal import cancel_job, delete_job

DECODED = SourceRecord(1, "o", SourceState.DECODED, chunks=(3,))


@pytest.fixture
def bench(spec: JobSpec, clock: ManualClock) -> StageBench:
    return StageBench(StageName.DENOISE, spec, clock)


@pytest.fixture
def reaper(bench: StageBench) -> Reaper:
    return Reaper(bench.platform, grace_s=60)


async def test_a_job_without_a_message_is_revived_after_the_grace_period(bench: StageBench, reaper: Reaper) -> None:
    await bench.jobs.create_spec(bench.spec)
    first = await reaper.sweep()
    await bench.clock.advance(61)
    second = await reaper.sweep()

    assert (first.revived, second.revived) == ([], ["video_1"])
    assert await bench.waiting(StageName.DENOISE) == [bench.task]


async def test_a_job_with_a_message_is_left_alone(bench: StageBench, reaper: Reaper) -> None:
    await bench.accepted()
    await bench.delivery()
    await reaper.sweep()
    await bench.clock.advance(61)

    assert (await reaper.sweep()).revived == []


async def test_a_job_that_gets_a_message_in_between_is_not_suspected_any_more(
    bench: StageBench, reaper: Reaper
) -> None:
    await bench.jobs.create_spec(bench.spec)
    await reaper.sweep()
    await bench.bus.publish(bench.task)
    await bench.clock.advance(61)
    await reaper.sweep()
    await bench.bus.purge("video_1")

    assert (await reaper.sweep()).revived == []


@pytest.mark.parametrize("state", [SourceState.DECODED, SourceState.RUNNING])
async def test_a_revived_job_is_computed_anew_and_ends(bench: StageBench, state: SourceState) -> None:
    await bench.jobs.create_spec(bench.spec)
    await bench.jobs.swap_source("video_1", replace(DECODED, state=state), None)
    await Reaper(bench.platform, grace_s=0).sweep()
    await bench.settle()

    source = await bench.source()
    assert source is not None
    assert (source.attempt, source.state) == (2, SourceState.DECODED)


async def test_a_job_that_is_lost_again_and_again_comes_to_an_end(bench: StageBench) -> None:
    await bench.jobs.create_spec(bench.spec)
    reaper = Reaper(bench.platform, grace_s=0)
    for _ in range(6):
        await reaper.sweep()
        await bench.settle()
        await bench.bus.purge("video_1")
        if await bench.end():
            break

    end = await bench.end()
    assert end is not None
    assert end.code == "worker_crashed"


async def test_a_job_past_its_deadline_fails(bench: StageBench, reaper: Reaper) -> None:
    await bench.accepted()
    await bench.clock.advance(86_401)
    done = await reaper.sweep()

    end = await bench.end()
    assert end is not None
    assert (done.expired, end.state, end.code) == (["video_1"], EndState.FAILED, "deadline_exceeded")
    assert await bench.bus.count("video_1") == 0


@pytest.mark.parametrize("job", ["ended", "unknown"])
async def test_objects_of_jobs_that_are_not_running_are_deleted_after_the_grace_period(
    job: str, bench: StageBench, reaper: Reaper
) -> None:
    await bench.put_source_chunks()
    if job == "ended":
        await bench.jobs.create_spec(bench.spec)
        await bench.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", bench.clock.now_ns() // 1_000_000))
    await reaper.sweep()
    early = await bench.left()
    await bench.clock.advance(61)
    await reaper.sweep()

    assert (len(early), await bench.left()) == (6 // 2, [])


async def test_objects_of_running_jobs_are_kept(bench: StageBench, reaper: Reaper) -> None:
    await bench.accepted()
    await bench.put_source_chunks()
    await reaper.sweep()
    await bench.clock.advance(61)
    await reaper.sweep()

    assert len(await bench.left()) == 3


async def test_results_are_deleted_when_their_time_is_over(bench: StageBench, reaper: Reaper) -> None:
    await bench.jobs.create_spec(replace(bench.spec, result_ttl_s=100))
    await bench.results.put("video_1/t/0.mp4", b"x")
    await bench.jobs.create_end("video_1", JobEnd(EndState.COMPLETED, "t", bench.clock.now_ns() // 1_000_000))
    await bench.clock.advance(99)
    early = await reaper.sweep()
    await bench.clock.advance(2)
    late = await reaper.sweep()

    assert (early.removed, late.removed) == ([], ["video_1"])
    assert (await bench.jobs.spec("video_1"), await bench.results.list("")) == (None, [])


@pytest.mark.parametrize(
    ("state", "spec_is_there", "kept"),
    [
        (EndState.COMPLETED, True, ["video_1/winner/0.mp4"]),
        (EndState.CANCELLED, True, []),
        (EndState.FAILED, True, []),
        (EndState.CANCELLED, False, []),
    ],
)
async def test_files_of_an_upload_that_died_before_it_saw_the_end_are_deleted(
    state: EndState, spec_is_there: bool, kept: list[str], bench: StageBench, reaper: Reaper
) -> None:
    if spec_is_there:
        await bench.jobs.create_spec(bench.spec)
    await bench.jobs.create_end("video_1", JobEnd(state, "winner", bench.clock.now_ns() // 1_000_000))
    for token in ("winner", "loser"):
        await bench.results.put(f"video_1/{token}/0.mp4", b"x")
    early = await reaper.sweep()
    await bench.clock.advance(61)
    late = await reaper.sweep()

    assert (early.tidied, late.tidied) == ([], ["video_1"])
    assert [info.key for info in await bench.results.list("")] == kept


async def test_a_jobs_files_are_looked_at_once(bench: StageBench, reaper: Reaper) -> None:
    await bench.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "t", bench.clock.now_ns() // 1_000_000))
    await bench.clock.advance(61)
    await reaper.sweep()
    await bench.results.put("video_1/loser/0.mp4", b"x")

    assert (await reaper.sweep()).tidied == []


async def test_a_sweep_looks_at_the_files_of_so_many_jobs_the_latest_first(bench: StageBench, reaper: Reaper) -> None:
    ended_ms = bench.clock.now_ns() // 1_000_000
    for number in range(MAX_LOOKED_AFTER + 1):
        await bench.jobs.create_end(f"video_{number}", JobEnd(EndState.CANCELLED, "t", ended_ms + number))
        await bench.results.put(f"video_{number}/loser/0.mp4", b"x")
    await bench.clock.advance(61)
    first, second = await reaper.sweep(), await reaper.sweep()

    assert (len(first.tidied), second.tidied) == (MAX_LOOKED_AFTER, ["video_0"])


async def test_progress_records_of_an_ended_job_are_deleted_after_the_grace_period(
    bench: StageBench, reaper: Reaper
) -> None:
    await bench.accepted()
    await bench.put_source_chunks()
    await bench.jobs.swap_source("video_1", DECODED, None)
    await bench.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "t", bench.clock.now_ns() // 1_000_000))
    await reaper.sweep()
    early = await bench.source()
    await bench.clock.advance(61)
    await reaper.sweep()

    assert (early, await bench.source(), await bench.jobs.chunks("video_1")) == (DECODED, None, [])


async def test_the_tombstone_of_a_deleted_job_outlives_every_deadline(bench: StageBench, reaper: Reaper) -> None:
    await bench.accepted()
    await delete_job(bench.platform, "video_1")
    await bench.clock.advance(25 * 3600)
    await reaper.sweep()
    kept = await bench.end()
    await bench.clock.advance(2 * 3600)
    await reaper.sweep()

    assert (kept is not None, await bench.jobs.all()) == (True, [])


async def test_deleting_twice_is_deleting_once(bench: StageBench) -> None:
    await bench.accepted()
    await bench.put_source_chunks()
    await delete_job(bench.platform, "video_1")
    await delete_job(bench.platform, "video_1")

    assert (await bench.left(), await bench.bus.count("video_1"), await bench.jobs.spec("video_1")) == ([], 0, None)


async def test_cancelling_a_finished_job_leaves_its_end(bench: StageBench) -> None:
    await bench.accepted()
    await bench.jobs.create_end("video_1", JobEnd(EndState.COMPLETED, "t", 1))

    assert (await cancel_job(bench.platform, "video_1")).state is EndState.COMPLETED
