"""What one attempt of a source leaves to the next: rules, and the worker's part."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from stage_bench import StageBench

from vitascope_core import keys
from vitascope_core.handling import Resume, Work
from vitascope_core.job import CheckpointRecord, ChunkRecord, JobSpec, SourceRecord, SourceState
from vitascope_core.plan import StageName
from vitascope_platform.attempts import kept_chunks, next_attempt, stepped
from vitascope_platform.clock import ManualClock
from vitascope_platform.control import TaskControl

DENOISE = StageName.DENOISE


def checkpoint(step: int, attempt: int = 1, seconds: float = 1.5) -> CheckpointRecord:
    return CheckpointRecord(attempt, keys.checkpoint_key("video_1", attempt, step), step, seconds, "digest")


def chunk(index: int, output: int = 0, *, last: bool = False) -> ChunkRecord:
    key = keys.chunk_key("video_1", 1, DENOISE, output, index)
    return ChunkRecord(1, DENOISE, output, index, key, index, 1, last)


@pytest.fixture
def denoise(spec: JobSpec, clock: ManualClock) -> StageBench:
    return StageBench(DENOISE, spec, clock)


# --- rules -----------------------------------------------------------------------------------------------------------


def test_an_attempt_with_a_newer_checkpoint_is_no_crash() -> None:
    before = SourceRecord(3, "w", crashes=2, checkpoint=checkpoint(5), best_step=4)

    assert next_attempt(before, 0, "t", 0).crashes == 0


def test_an_attempt_that_only_reached_the_old_checkpoint_again_is_one() -> None:
    before = SourceRecord(3, "w", crashes=1, checkpoint=checkpoint(4, attempt=3), best_step=4)

    following = next_attempt(before, 0, "t", 0)

    assert (following.crashes, following.best_step) == (2, 4)


def test_a_claim_inherits_the_checkpoint_and_what_was_reached() -> None:
    before = SourceRecord(2, "w", step=7, steps=9, checkpoint=checkpoint(5), resumed_step=3, computed_steps=6)
    before = replace(before, saved_seconds=2.5, reached_step=8, previews=2)

    following = next_attempt(before, 0, "t", 0)

    assert (following.checkpoint, following.steps, following.reached_step) == (checkpoint(5), 9, 8)
    assert (following.computed_steps, following.saved_seconds) == (6 + 7 - 3, 2.5)
    assert (following.step, following.resumed_step, following.previews) == (0, 0, 0)


def test_a_heartbeat_takes_no_step_back() -> None:
    record = stepped(SourceRecord(1, "w", step=5, steps=9), 0, 0)

    assert (record.step, record.steps, record.beat) == (5, 9, 1)


FINAL = SourceRecord(1, "w", step=9, steps=9, checkpoint=checkpoint(9))
STORED = [chunk(0), chunk(1, last=True), chunk(0, 1), chunk(1, 2, last=True)]


def test_outputs_that_were_stored_in_full_are_kept() -> None:
    assert kept_chunks(FINAL, STORED) == (STORED[0], STORED[1])


@pytest.mark.parametrize(
    "before",
    [
        replace(FINAL, checkpoint=None),
        replace(FINAL, checkpoint=checkpoint(8)),
        replace(FINAL, attempt=2),  # it computed latents of its own, and left no checkpoint of them
    ],
    ids=["none", "not the last step", "another attempt's"],
)
def test_nothing_is_kept_unless_its_latents_are_those_of_the_checkpoint(before: SourceRecord) -> None:
    assert kept_chunks(before, STORED) == ()


def test_what_was_decoded_from_an_inherited_checkpoint_is_kept() -> None:
    assert kept_chunks(replace(FINAL, attempt=2, resumed_step=9), STORED) == (STORED[0], STORED[1])


# --- the worker ------------------------------------------------------------------------------------------------------


async def died(bench: StageBench, record: SourceRecord, *others: str) -> None:
    """Leave the job as an attempt that died would have."""
    await bench.accepted(record)
    for key in (record.checkpoint.key if record.checkpoint else "", *others):
        await bench.frames.put(key, b"x")


async def test_a_new_attempt_is_told_of_the_checkpoint_and_the_rest_is_removed(denoise: StageBench) -> None:
    prefix = keys.attempt_prefix("video_1", 1)
    await died(denoise, SourceRecord(1, "w", steps=9, checkpoint=checkpoint(4)), f"{prefix}checkpoint-2")
    await denoise.put_source_chunks(count=1)
    seen: list[list[str]] = []

    async def look(work: Work) -> None:
        seen.append(await denoise.left())

    denoise.handler.before = look
    await denoise.settle()

    assert denoise.handler.runs[0].resume == Resume(checkpoint(4))
    assert seen == [[checkpoint(4).key]]


async def test_a_new_attempt_is_given_the_outputs_that_were_stored_in_full(denoise: StageBench) -> None:
    await died(denoise, FINAL)
    await denoise.put_source_chunks()
    seen: list[list[str]] = []

    async def look(work: Work) -> None:
        seen.append(await denoise.left())

    denoise.handler.before = look
    await denoise.settle()

    resume = denoise.handler.runs[0].resume
    assert resume is not None
    assert [record.index for record in resume.kept] == [0, 1, 2]
    assert seen == [sorted([checkpoint(9).key, *(record.key for record in resume.kept)])]


async def test_an_attempt_that_comes_back_late_leaves_the_checkpoint_to_its_successor(denoise: StageBench) -> None:
    await denoise.accepted()
    mine = checkpoint(4)

    async def superseded(work: Work) -> None:
        assert work.log is not None
        await denoise.frames.put(mine.key, b"x")
        await denoise.frames.put(keys.checkpoint_key("video_1", 1, 6), b"too late")
        assert await work.log.point(mine)
        found = await denoise.jobs.source("video_1")
        assert found is not None
        await denoise.jobs.swap_source("video_1", next_attempt(found.record, 0, "other", 0), found.revision)
        assert not await work.log.point(checkpoint(6))
        while True:
            await denoise.clock.sleep(0.1)
            work.control.tick()

    denoise.handler.before = superseded
    await denoise.settle()

    source = await denoise.source()
    assert (source and source.owner, source and source.checkpoint) == ("other", mine)
    assert await denoise.left() == [mine.key]


async def test_what_a_resume_repeats_and_saves_is_recorded(denoise: StageBench) -> None:
    await died(denoise, SourceRecord(1, "w", step=7, steps=9, checkpoint=checkpoint(4)))

    async def resumed(work: Work) -> None:
        assert work.log is not None
        assert await work.log.resumed(checkpoint(4))

    denoise.handler.before = resumed
    await denoise.settle()

    source = await denoise.source()
    assert source is not None
    assert (source.computed_steps, source.resumed_step, source.saved_seconds) == (7, 4, 1.5)


async def test_running_work_hears_that_the_worker_shuts_down(denoise: StageBench) -> None:
    await denoise.accepted()
    told, draining, stop = [], asyncio.Event(), asyncio.Event()

    async def listening(work: Work) -> None:
        work.control.on_draining(lambda: (told.append(work.control.stopped), draining.set()))
        stop.set()
        await draining.wait()

    denoise.handler.before = listening
    await denoise.until(asyncio.create_task(denoise.worker.run(stop)))

    assert told == [False]
    source = await denoise.source()
    assert source is not None
    assert source.state is SourceState.DECODED  # it had time to finish


def test_whoever_asks_late_hears_of_the_shutdown_at_once(clock: ManualClock) -> None:
    control, told = TaskControl(clock), []
    control.drain()
    control.on_draining(lambda: told.append(1))

    assert told == [1]
