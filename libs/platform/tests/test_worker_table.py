"""The worker's table (DESIGN section 7), row by row, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from stage_bench import StageBench

from vitascope_core.errors import (
    BrokerUnavailable,
    DeviceOutOfMemory,
    DiskFull,
    EngineCrashed,
    InputLost,
    InvalidWeights,
    Stalled,
    StoreUnavailable,
    VitascopeError,
)
from vitascope_core.handling import Work
from vitascope_core.job import EndState, JobEnd, JobSpec, SourceRecord, SourceState
from vitascope_core.plan import Plan, StageName, UpscaleOptions
from vitascope_core.ports import Delivery
from vitascope_core.task import Queue, Task, source_task
from vitascope_platform.clock import ManualClock, settle
from vitascope_platform.control import StopReason

DENOISE, UPSCALE, UPLOAD = StageName.DENOISE, StageName.UPSCALE, StageName.UPLOAD
RUNNING = SourceRecord(1, "other", SourceState.RUNNING)
DECODED = SourceRecord(1, "other", SourceState.DECODED, chunks=(3,))


def raises(error: Exception):
    async def step(work: Work) -> None:
        raise error

    return step


@pytest.fixture
def denoise(spec: JobSpec, clock: ManualClock) -> StageBench:
    return StageBench(DENOISE, spec, clock)


@pytest.fixture
def upscale(spec: JobSpec, clock: ManualClock) -> StageBench:
    return StageBench(UPSCALE, replace(spec, plan=Plan(upscale=UpscaleOptions(2))), clock)


@pytest.fixture
def upload(spec: JobSpec, clock: ManualClock) -> StageBench:
    return StageBench(UPLOAD, spec, clock)


# --- read spec, end, source ------------------------------------------------------------------------------------------


async def test_a_task_of_an_unknown_job_is_acknowledged_and_its_leftovers_deleted(denoise: StageBench) -> None:
    await denoise.bus.publish(denoise.task)
    await denoise.frames.put("jobs/video_1/1/denoise/0-0", b"left")
    await denoise.settle()

    assert (denoise.handler.runs, await denoise.left(), await denoise.bus.count("video_1")) == ([], [], 0)


async def test_a_task_of_an_ended_job_is_acknowledged_and_its_leftovers_deleted(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    await upscale.put_source_chunks()
    await upscale.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))
    await upscale.settle()

    assert (upscale.handler.runs, await upscale.left(), await upscale.bus.count("video_1")) == ([], [], 0)


@pytest.mark.parametrize("stage", ["upscale", "upload"])
async def test_a_task_of_a_superseded_attempt_is_acknowledged(
    stage: str, upscale: StageBench, upload: StageBench
) -> None:
    bench = {"upscale": upscale, "upload": upload}[stage]
    await bench.accepted(SourceRecord(2, "other"))
    await bench.settle()

    assert (bench.handler.runs, await bench.bus.count("video_1"), await bench.end()) == ([], 0, None)


async def test_a_task_of_a_newer_version_is_left_for_a_newer_worker(denoise: StageBench) -> None:
    await denoise.jobs.create_spec(denoise.spec)
    await denoise.bus.publish(replace(denoise.task, schema_version=99))
    await denoise.settle()

    assert (denoise.handler.runs, await denoise.bus.count("video_1"), await denoise.end()) == ([], 1, None)


# --- source task -----------------------------------------------------------------------------------------------------


async def test_a_source_task_claims_stores_announces_and_is_acknowledged(denoise: StageBench) -> None:
    await denoise.accepted()
    await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.state, source.attempt, source.chunks) == (SourceState.DECODED, 1, (3,))
    assert [r.index for r in await denoise.jobs.chunks("video_1", 1, DENOISE)] == [0, 1, 2]
    assert await denoise.waiting(UPLOAD) == [Task("video_1", UPLOAD, attempt=1)]
    assert await denoise.bus.count("video_1") == 1


async def test_each_chunk_of_a_plan_with_a_transform_is_announced_to_it(
    upscale: StageBench, clock: ManualClock
) -> None:
    bench = StageBench(DENOISE, replace(upscale.spec, cuts=(4, 5)), clock)
    await bench.accepted()
    await bench.settle()

    assert [task.index for task in await bench.waiting(UPSCALE)] == [0, 1]
    assert await bench.waiting(UPLOAD) == []


async def test_a_source_task_of_a_decoded_job_is_acknowledged(denoise: StageBench) -> None:
    await denoise.accepted(DECODED)
    await denoise.settle()

    assert (denoise.handler.runs, await denoise.bus.count("video_1")) == ([], 0)


async def test_a_source_that_shows_life_is_left_alone(denoise: StageBench) -> None:
    await denoise.accepted(RUNNING)
    settling = asyncio.create_task(denoise.worker.settle(await denoise.delivery()))
    await settle()
    await denoise.beat()
    await denoise.until(settling)

    assert denoise.handler.runs == []
    await denoise.clock.advance(29)
    assert await denoise.waiting(DENOISE) == []
    await denoise.clock.advance(2)
    assert await denoise.waiting(DENOISE) == [denoise.task]


async def test_a_source_that_shows_no_life_is_claimed_and_its_objects_deleted(denoise: StageBench) -> None:
    await denoise.accepted(RUNNING)
    await denoise.put_source_chunks(attempt=1)
    await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.attempt, source.state) == (2, SourceState.DECODED)
    assert all(key.startswith("jobs/video_1/2/") for key in await denoise.left())


async def test_a_claim_that_loses_the_race_leaves_the_job_to_the_winner(denoise: StageBench) -> None:
    await denoise.accepted()
    take = denoise.worker._claims.runs.take

    async def late(*args):
        await denoise.jobs.swap_source("video_1", RUNNING, None)
        return await take(*args)

    object.__setattr__(denoise.worker._claims, "runs", Replaced(denoise.worker._claims.runs, take=late))
    await denoise.settle()

    source = await denoise.source()
    assert (denoise.handler.runs, source) == ([], RUNNING)


class Replaced:
    """Another object with some of its methods replaced."""

    def __init__(self, inner: object, **methods: object) -> None:
        self.__dict__.update(methods, _inner=inner)

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("before", "chunks", "crashes"),
    [
        (SourceRecord(1, "o", SourceState.RUNNING), 0, 1),
        (SourceRecord(1, "o", SourceState.FAILED, crashes=1), 0, 2),
        (SourceRecord(1, "o", SourceState.FAILED, crashes=2), 2, 0),
        (SourceRecord(2, "o", SourceState.FAILED, crashes=1, best_chunks=2), 2, 2),
        (SourceRecord(2, "o", SourceState.HANDED_BACK, crashes=2), 0, 2),
    ],
    ids=["died", "raised", "got further", "died at the same place", "handed back"],
)
async def test_an_attempt_counts_as_a_crash_without_progress(
    denoise: StageBench, before: SourceRecord, chunks: int, crashes: int
) -> None:
    await denoise.accepted(before)
    await denoise.put_source_chunks(before.attempt, chunks)
    await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.attempt, source.crashes) == (before.attempt + 1, crashes)


async def test_the_time_in_the_queue_ends_with_the_first_attempt(denoise: StageBench) -> None:
    started_ms = denoise.spec.created_ms + 5000
    await denoise.accepted(SourceRecord(1, "o", SourceState.FAILED, started_ms=started_ms))
    await denoise.clock.advance(60)
    await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.attempt, source.started_ms) == (2, started_ms)


async def test_three_crashes_in_a_row_end_the_job(denoise: StageBench) -> None:
    await denoise.accepted()
    denoise.handler.before = raises(EngineCrashed("killed by signal 9"))
    for _ in range(4):
        await denoise.settle()
        await denoise.clock.advance(20)
        if await denoise.end():
            break

    end = await denoise.end()
    assert end is not None
    assert (end.state, end.code, len(denoise.handler.runs)) == (EndState.FAILED, "worker_crashed", 3)
    assert "killed by signal 9" in end.message
    assert (await denoise.bus.count("video_1"), await denoise.left()) == (0, [])


# --- other tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "runs"), [(4, 1), (5, 0)])
async def test_a_chunk_task_runs_at_most_four_times(upscale: StageBench, count: int, runs: int) -> None:
    await upscale.accepted(DECODED)
    await upscale.settle(count)

    end = await upscale.end()
    assert (len(upscale.handler.runs), end and end.code) == (runs, None if runs else "worker_crashed")


async def test_a_task_handed_out_before_runs_alone(upscale: StageBench) -> None:
    await upscale.jobs.create_spec(upscale.spec)
    await upscale.jobs.swap_source("video_1", DECODED, None)
    first_runs, release, order = asyncio.Event(), asyncio.Event(), []

    async def before(work: Work) -> None:
        order.append(f"start {work.task.index}")
        if work.task.index == 0:
            first_runs.set()
            await release.wait()
        order.append(f"end {work.task.index}")

    upscale.handler.before = before
    await upscale.bus.publish(replace(upscale.task, index=1))
    redelivered = await upscale.delivery(count=2)
    await upscale.bus.publish(replace(upscale.task, index=0))
    (fresh,) = await upscale.bus.fetch(Queue(UPSCALE), 1, timeout_s=0)
    running = asyncio.create_task(upscale.worker.settle(fresh))
    await first_runs.wait()
    alone = asyncio.create_task(upscale.worker.settle(redelivered))
    await settle()
    release.set()
    await asyncio.gather(running, alone)

    assert order == ["start 0", "end 0", "start 1", "end 1"]


async def test_nothing_is_held_beside_a_task_that_was_handed_out_before(upscale: StageBench) -> None:
    await upscale.jobs.create_spec(upscale.spec)
    await upscale.jobs.swap_source("video_1", DECODED, None)
    runs, release, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def before(work: Work) -> None:
        runs.set()
        await release.wait()

    upscale.handler.before = before
    await upscale.bus.publish(replace(upscale.task, index=0))
    await (await upscale.delivery()).nak()
    await upscale.bus.publish(replace(upscale.task, index=1))
    running = asyncio.create_task(upscale.worker.run(stop))
    await runs.wait()
    await upscale.bus.publish(replace(upscale.task, index=2))
    await settle()
    beside_a_suspect = await upscale.bus.depth(Queue(UPSCALE))
    release.set()
    release = asyncio.Event()
    await settle()
    beside_each_other = await upscale.bus.depth(Queue(UPSCALE))
    release.set()
    stop.set()
    await upscale.until(running)

    assert (beside_a_suspect.waiting, beside_each_other.waiting) == (2, 0)


# --- while working ---------------------------------------------------------------------------------------------------


async def test_a_working_task_is_not_handed_out_again(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    release = asyncio.Event()
    upscale.handler.before = lambda work: release.wait()
    settling = asyncio.create_task(upscale.worker.settle(await upscale.delivery()))
    await upscale.clock.advance(300)
    elsewhere = await upscale.waiting(UPSCALE)
    release.set()
    await upscale.until(settling)

    assert elsewhere == []


async def test_a_working_source_shows_life_and_progress(denoise: StageBench) -> None:
    await denoise.accepted()
    release = asyncio.Event()

    async def before(work: Work) -> None:
        work.control.tick(step=3, steps=8)
        await release.wait()

    denoise.handler.before = before
    settling = asyncio.create_task(denoise.worker.settle(await denoise.delivery()))
    await denoise.clock.advance(1)
    first = await denoise.source()
    await denoise.clock.advance(1)
    second = await denoise.source()
    release.set()
    await denoise.until(settling)

    assert first is not None
    assert second is not None
    assert (first.step, first.steps, second.beat) == (3, 8, first.beat + 1)


@pytest.mark.parametrize("stage", ["denoise", "upscale", "upload"])
async def test_work_on_a_job_that_ends_stops_and_leaves_nothing(
    stage: str, denoise: StageBench, upscale: StageBench, upload: StageBench
) -> None:
    bench = {"denoise": denoise, "upscale": upscale, "upload": upload}[stage]
    await bench.accepted(None if stage == "denoise" else DECODED)

    async def until_stopped(work: Work) -> None:
        while True:
            await bench.clock.sleep(0.1)
            work.control.tick()

    bench.handler.before = until_stopped
    settling = asyncio.create_task(bench.worker.settle(await bench.delivery()))
    await bench.clock.advance(2)
    await bench.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))
    await bench.until(settling)

    end = await bench.end()
    assert (end and end.token, await bench.left(), await bench.bus.count("video_1")) == ("x", [], 0)
    assert await bench.results.list("") == []


async def test_work_hears_of_its_jobs_end_at_once(denoise: StageBench) -> None:
    await denoise.accepted()
    begun, told = asyncio.Event(), asyncio.Event()

    async def before(work: Work) -> None:
        work.control.on_stop(told.set)
        begun.set()
        await told.wait()
        work.control.tick()

    denoise.handler.before = before
    settling = asyncio.create_task(denoise.worker.settle(await denoise.delivery()))
    await begun.wait()
    await settle()
    await denoise.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))
    await settle()

    assert told.is_set()
    await denoise.until(settling)


async def test_an_upload_that_waits_for_chunks_stops_when_the_job_ends(upload: StageBench) -> None:
    await upload.accepted(DECODED)
    await upload.put_source_chunks(count=1)
    settling = asyncio.create_task(upload.worker.settle(await upload.delivery()))
    await upload.clock.advance(5)
    await upload.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))
    await upload.until(settling)

    assert (await upload.bus.count("video_1"), await upload.results.list("")) == (0, [])


async def test_work_of_an_attempt_that_is_superseded_stops_and_deletes_its_own_objects(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    await upscale.put_source_chunks(attempt=1)
    await upscale.frames.put("jobs/video_1/2/denoise/0-0", b"the new attempt's")

    async def until_stopped(work: Work) -> None:
        while True:
            await upscale.clock.sleep(0.1)
            work.control.tick()

    upscale.handler.before = until_stopped
    settling = asyncio.create_task(upscale.worker.settle(await upscale.delivery()))
    await upscale.clock.advance(2)
    found = await upscale.jobs.source("video_1")
    assert found is not None
    await upscale.jobs.swap_source("video_1", SourceRecord(2, "new"), found.revision)
    await upscale.until(settling)

    assert await upscale.left() == ["jobs/video_1/2/denoise/0-0"]
    assert (await upscale.end(), await upscale.bus.count("video_1")) == (None, 0)


async def test_a_source_whose_claim_is_taken_stops_and_deletes_its_own_objects(denoise: StageBench) -> None:
    await denoise.accepted()

    async def between(work: Work) -> None:
        while True:
            await denoise.clock.sleep(0.1)
            work.control.tick()

    denoise.handler.between = between
    settling = asyncio.create_task(denoise.worker.settle(await denoise.delivery()))
    await denoise.clock.advance(2)
    found = await denoise.jobs.source("video_1")
    assert found is not None
    await denoise.jobs.swap_source("video_1", SourceRecord(2, "new"), found.revision)
    await denoise.until(settling)

    source = await denoise.source()
    assert (source and source.owner, await denoise.left()) == ("new", [])


async def test_silence_beyond_the_stall_timeout_ends_the_worker_and_frees_the_task(
    spec: JobSpec, clock: ManualClock
) -> None:
    bench = StageBench(DENOISE, spec, clock, stall_timeout_s=60)
    await bench.accepted()
    never = asyncio.Event()
    bench.handler.before = lambda work: never.wait()
    running = asyncio.create_task(bench.worker.run(asyncio.Event()))
    with pytest.raises(Stalled):
        await bench.until(running)

    await clock.advance(31)
    assert await bench.waiting(DENOISE) == [bench.task]


async def test_waiting_for_another_stage_is_no_stall(spec: JobSpec, clock: ManualClock) -> None:
    bench = StageBench(UPLOAD, spec, clock, stall_timeout_s=60)
    await bench.accepted(DECODED)
    settling = asyncio.create_task(bench.worker.settle(await bench.delivery()))
    await clock.advance(600)
    await bench.put_source_chunks()
    await bench.until(settling)

    end = await bench.end()
    assert end is not None
    assert end.state is EndState.COMPLETED


# --- each output -----------------------------------------------------------------------------------------------------


async def test_a_chunk_stored_after_the_end_is_deleted_and_not_announced(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)

    async def before(work: Work) -> None:
        await upscale.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))

    upscale.handler.before = before
    await upscale.settle()

    assert (await upscale.left(), await upscale.jobs.chunks("video_1", 1, UPSCALE)) == ([], [])
    assert await upscale.waiting(UPLOAD) == []


async def test_a_chunk_stored_while_the_worker_shuts_down_is_deleted(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)

    async def before(work: Work) -> None:
        work.control.stop(StopReason.SHUTDOWN)

    upscale.handler.before = before
    await upscale.settle()

    assert (await upscale.left(), await upscale.bus.count("video_1")) == ([], 1)


async def test_successors_continue_the_trace_of_their_task(upscale: StageBench) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    await upscale.jobs.create_spec(upscale.spec)
    await upscale.jobs.swap_source("video_1", DECODED, None)
    await upscale.bus.publish(upscale.task, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    await upscale.settle()

    (following,) = await upscale.bus.fetch(Queue(UPLOAD), 1, timeout_s=0)
    assert following.headers["traceparent"].split("-")[1] == trace


async def test_a_source_makes_no_more_while_the_next_stage_is_full(spec: JobSpec, clock: ManualClock) -> None:
    plan = Plan(upscale=UpscaleOptions(2))
    bench = StageBench(DENOISE, replace(spec, plan=plan, cuts=(1,) * 9), clock, max_backlog=3)
    bench.bus._max_waiting = None
    await bench.accepted()
    settling = asyncio.create_task(bench.worker.settle(await bench.delivery()))
    await clock.advance(100)
    made = len(await bench.jobs.chunks("video_1", 1, DENOISE))
    taken = await bench.bus.fetch(Queue(UPSCALE), 2, timeout_s=0)
    for delivery in taken:
        await delivery.ack()
    await clock.advance(100)
    more = len(await bench.jobs.chunks("video_1", 1, DENOISE))
    settling.cancel()

    assert (made, more) == (3, 5)


async def test_a_stage_takes_nothing_while_the_one_behind_is_full_but_not_for_ever(
    spec: JobSpec, clock: ManualClock
) -> None:
    bench = StageBench(DENOISE, spec, clock, max_backlog=2, backlog_pause_s=60)
    await bench.accepted()
    for number in range(2):
        await bench.bus.publish(Task(f"video_{number + 5}", UPLOAD, attempt=1))
    stop = asyncio.Event()
    running = asyncio.create_task(bench.worker.run(stop))
    await clock.advance(50)
    early = len(bench.handler.runs)
    await clock.advance(20)
    late = len(bench.handler.runs)
    stop.set()
    await bench.until(running)

    assert (early, late) == (0, 1)


# --- finish ----------------------------------------------------------------------------------------------------------


async def test_an_upload_follows_chunks_in_order_and_ends_the_job(upload: StageBench) -> None:
    await upload.accepted(DECODED)
    await upload.put_source_chunks()
    await upload.settle()

    end = await upload.end()
    assert end is not None
    assert end.state is EndState.COMPLETED
    assert end.usage.attempts == 1
    assert await upload.results.get(end.files[0].key) == b"[0, 1, 2]"
    assert (await upload.left(), await upload.bus.count("video_1"), await upload.source()) == ([], 0, None)


async def test_an_upload_rides_out_a_lost_watch(upload: StageBench, monkeypatch: pytest.MonkeyPatch) -> None:
    await upload.accepted(DECODED)
    await upload.put_source_chunks(count=1)
    watch_chunks, watches = upload.jobs.watch_chunks, []

    @asynccontextmanager
    async def lost_once(*args):
        async def first_then_lost(records):
            yield await anext(records)
            raise BrokerUnavailable("connection closed")

        watches.append(args)
        async with watch_chunks(*args) as records:
            yield first_then_lost(records) if len(watches) == 1 else records

    monkeypatch.setattr(upload.jobs, "watch_chunks", lost_once)
    settling = asyncio.create_task(upload.worker.settle(await upload.delivery()))
    await upload.clock.advance(5)
    await upload.put_source_chunks()
    await upload.until(settling)

    end = await upload.end()
    assert end is not None
    assert (await upload.results.get(end.files[0].key), len(watches)) == (b"[0, 1, 2]", 2)


async def test_the_upload_that_ends_the_job_removes_what_a_killed_one_left(upload: StageBench) -> None:
    await upload.accepted(DECODED)
    await upload.put_source_chunks()
    await upload.results.put("video_1/killed/0.mp4", b"half")
    await upload.results.put("video_10/other/0.mp4", b"another job's")
    await upload.settle()

    end = await upload.end()
    assert end is not None
    kept = [f"video_1/{end.token}/{name}" for name in ("0.mp4", "manifest.json")]
    assert [info.key for info in await upload.results.list("")] == [*kept, "video_10/other/0.mp4"]


async def test_an_upload_that_loses_the_end_discards_its_files(upload: StageBench) -> None:
    await upload.accepted(DECODED)
    await upload.put_source_chunks()

    async def between(work: Work) -> None:
        await upload.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))

    upload.handler.between = between
    await upload.settle()

    end = await upload.end()
    assert (end and end.token, await upload.results.list(""), await upload.bus.count("video_1")) == ("x", [], 0)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "count", "outcome"),
    [
        (DeviceOutOfMemory("upscale"), 1, "again after 2 s"),
        (DeviceOutOfMemory("upscale"), 3, "again after 8 s"),
        (RuntimeError("a bug"), 1, "again after 2 s"),
        (InvalidWeights("conv_first.weight"), 1, "invalid_weights"),
        (InputLost("chunk 0"), 2, "input_lost"),
    ],
)
async def test_what_an_error_of_a_chunk_task_leads_to(
    upscale: StageBench, error: Exception, count: int, outcome: str
) -> None:
    await upscale.accepted(DECODED)
    upscale.handler.before = raises(error)
    await upscale.settle(count)

    end = await upscale.end()
    if end is not None:
        assert (end.code, await upscale.bus.count("video_1"), await upscale.left()) == (outcome, 0, [])
        return
    wait = float(outcome.split()[2])
    await upscale.clock.advance(wait - 0.01)
    early = await upscale.waiting(UPSCALE)
    await upscale.clock.advance(0.01)
    assert (early, await upscale.waiting(UPSCALE)) == ([], [upscale.task])


async def test_an_outage_that_lasts_hands_the_task_back_uncounted(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    upscale.handler.before = raises(StoreUnavailable("S3 timed out"))
    await upscale.settle(count=4)

    (again,) = await upscale.bus.fetch(upscale.queue, 1, timeout_s=0)
    assert (again.count, await upscale.end()) == (1, None)


async def test_a_source_is_handed_back_when_the_broker_comes_back_at_last(denoise: StageBench) -> None:
    await denoise.accepted()
    swap, away_until = denoise.jobs.swap_source, denoise.clock.monotonic() + 1000

    async def swap_when_there(job_id: str, record: SourceRecord, revision: int | None) -> int:
        if record.state is SourceState.HANDED_BACK and denoise.clock.monotonic() < away_until:
            raise BrokerUnavailable("away")
        return await swap(job_id, record, revision)

    denoise.jobs.swap_source = swap_when_there
    denoise.handler.before = raises(StoreUnavailable("S3 timed out"))
    await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.state, denoise.clock.monotonic() > away_until) == (SourceState.HANDED_BACK, True)


async def test_a_worker_that_handed_back_rests_and_leaves_the_task_to_others(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    upscale.handler.before = raises(DiskFull("no room"))
    settling = asyncio.create_task(upscale.worker.settle(await upscale.delivery()))
    await settle()
    (again,) = await upscale.bus.fetch(upscale.queue, 1, timeout_s=0)
    await upscale.clock.advance(4.9)
    early = settling.done()
    await upscale.clock.advance(0.2)

    assert (again.count, early, settling.done()) == (1, False, True)


async def test_an_outage_of_a_source_hands_it_back_and_counts_no_crash(denoise: StageBench) -> None:
    await denoise.accepted()
    denoise.handler.before = raises(StoreUnavailable("S3 timed out"))
    for _ in range(5):
        await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.state, source.crashes, source.attempt) == (SourceState.HANDED_BACK, 0, 5)


async def test_an_input_that_vanished_with_its_job_is_no_failure(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)

    async def before(work: Work) -> None:
        await upscale.jobs.create_end("video_1", JobEnd(EndState.CANCELLED, "x", 1))
        raise InputLost("chunk 0")

    upscale.handler.before = before
    await upscale.settle()

    end = await upscale.end()
    assert (end and end.state, await upscale.bus.count("video_1")) == (EndState.CANCELLED, 0)


class Unheard:
    """A delivery that the broker does not know any more: no answer to an ack ever comes."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __getattr__(self, name: str) -> object:
        return getattr(self._delivery, name)

    async def ack(self) -> None:
        raise BrokerUnavailable("no answer")


async def test_an_ack_without_an_answer_holds_the_worker_for_an_ack_wait(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    begun = upscale.clock.monotonic()
    await upscale.until(asyncio.create_task(upscale.worker.settle(Unheard(await upscale.delivery()))))

    assert 30 <= upscale.clock.monotonic() - begun < 35
    assert len(upscale.handler.runs) == 1


async def test_an_input_that_vanished_with_its_attempt_is_no_failure(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)

    async def before(work: Work) -> None:
        found = await upscale.jobs.source("video_1")
        assert found is not None
        await upscale.jobs.swap_source("video_1", SourceRecord(2, "new"), found.revision)
        raise InputLost("chunk 0")

    upscale.handler.before = before
    await upscale.settle()

    assert (await upscale.end(), await upscale.bus.count("video_1")) == (None, 0)


async def test_three_unexpected_errors_in_a_row_end_the_worker(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    upscale.handler.before = raises(RuntimeError("a bug"))
    running = asyncio.create_task(upscale.worker.run(asyncio.Event()))

    with pytest.raises(RuntimeError, match="a bug"):
        await upscale.until(running)
    assert len(upscale.handler.runs) == 3


async def test_expected_errors_never_end_the_worker(upscale: StageBench) -> None:
    await upscale.accepted(DECODED)
    upscale.handler.before = raises(DeviceOutOfMemory("upscale"))
    stop = asyncio.Event()
    running = asyncio.create_task(upscale.worker.run(stop))
    for _ in range(100):
        await upscale.clock.advance(1)
        if await upscale.end():
            break
    stop.set()
    await upscale.until(running)

    end = await upscale.end()
    assert end is not None
    assert (end.code, len(upscale.handler.runs)) == ("worker_crashed", 4)


# --- hand back and SIGTERM -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["denoise", "upscale"])
async def test_shutdown_hands_back_what_does_not_finish(stage: str, spec: JobSpec, clock: ManualClock) -> None:
    plan = Plan(upscale=UpscaleOptions(2))
    bench = StageBench(StageName(stage), replace(spec, plan=plan), clock, grace_s=0)
    await bench.accepted(None if stage == "denoise" else DECODED)
    begun = asyncio.Event()

    async def until_stopped(work: Work) -> None:
        begun.set()
        while True:
            await asyncio.sleep(0)
            work.control.tick()

    bench.handler.before = until_stopped
    stop = asyncio.Event()
    running = asyncio.create_task(bench.worker.run(stop))
    await begun.wait()
    stop.set()
    await bench.until(running)

    (again,) = await bench.bus.fetch(bench.queue, 1, timeout_s=0)
    source = await bench.source()
    assert source is not None
    assert again.task == bench.task
    assert source.state is (SourceState.HANDED_BACK if stage == "denoise" else SourceState.DECODED)
    assert again.count == (2 if stage == "denoise" else 1)


async def test_shutdown_in_an_outage_does_not_wait_for_its_end(spec: JobSpec, clock: ManualClock) -> None:
    bench = StageBench(DENOISE, spec, clock, grace_s=0, outage_s=100_000)
    await bench.accepted()
    waiting, away = asyncio.Event(), []

    async def put_chunk(*args: object) -> None:
        away.append(args)
        waiting.set()
        raise BrokerUnavailable("away")

    bench.jobs.put_chunk = put_chunk  # type: ignore[method-assign]
    stop = asyncio.Event()
    running = asyncio.create_task(bench.worker.run(stop))
    await waiting.wait()
    stop.set()
    await asyncio.wait_for(running, timeout=30)

    source = await bench.source()
    assert source is not None
    assert (source.state, source.crashes) == (SourceState.HANDED_BACK, 0)


async def test_shutdown_lets_work_finish_that_fits_the_grace_period(denoise: StageBench) -> None:
    await denoise.accepted()
    begun, release = asyncio.Event(), asyncio.Event()

    async def before(work: Work) -> None:
        begun.set()
        await release.wait()

    denoise.handler.before = before
    stop = asyncio.Event()
    running = asyncio.create_task(denoise.worker.run(stop))
    await begun.wait()
    stop.set()
    await settle()
    release.set()
    await denoise.until(running)

    source = await denoise.source()
    assert source is not None
    assert source.state is SourceState.DECODED


async def test_a_worker_goes_on_after_the_bus_was_away(denoise: StageBench) -> None:
    fetch, failed = denoise.bus.fetch, []

    async def away(*args, **kwargs):
        if not failed:
            failed.append(1)
            raise StoreUnavailable("away")
        return await fetch(*args, **kwargs)

    denoise.bus.fetch = away  # type: ignore[method-assign]
    await denoise.accepted()
    stop = asyncio.Event()
    running = asyncio.create_task(denoise.worker.run(stop))
    await denoise.clock.advance(3)
    stop.set()
    await denoise.until(running)

    assert len(denoise.handler.runs) == 1


async def test_a_fetch_goes_on_while_a_task_ends_beside_it(upscale: StageBench) -> None:
    fetch, withdrawn = upscale.bus.fetch, []

    async def watched(*args, **kwargs):
        try:
            return await fetch(*args, **kwargs)
        except asyncio.CancelledError:
            withdrawn.append(len(upscale.handler.runs))
            raise

    upscale.bus.fetch = watched  # type: ignore[method-assign]
    await upscale.accepted(DECODED)
    await upscale.put_source_chunks()
    stop = asyncio.Event()
    running = asyncio.create_task(upscale.worker.run(stop))
    await upscale.clock.advance(3)
    before_stop = list(withdrawn)
    stop.set()
    await upscale.until(running)

    assert (len(upscale.handler.runs), before_stop) == (1, [])


def test_source_tasks_name_their_pool(spec: JobSpec) -> None:
    assert source_task(spec).queue == Queue(DENOISE, "p")


def test_every_error_has_a_code() -> None:
    def kinds(kind: type[VitascopeError]) -> list[type[VitascopeError]]:
        return [kind, *(k for sub in kind.__subclasses__() for k in kinds(sub))]

    assert all(kind.code.isidentifier() for kind in kinds(VitascopeError))
