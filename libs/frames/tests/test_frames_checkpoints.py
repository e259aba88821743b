"""Checkpoints of a source: how they are stored beside the computing, and how an attempt goes on from one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field

import numpy as np
import pytest

from vitascope_core.errors import BrokerUnavailable, Retryable, Stopped, StoreUnavailable
from vitascope_core.handling import Resume, Work
from vitascope_core.job import CheckpointRecord, JobKind
from vitascope_core.keys import checkpoint_key, chunk_key, preview_key
from vitascope_core.plan import StageName
from vitascope_core.task import source_task
from vitascope_frames.checkpoints import Checkpoint, NoCheckpoints
from vitascope_frames.codec import loads
from vitascope_frames.pictures import decode_picture
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.stored_checkpoints import StoredCheckpoints
from vitascope_frames.testcard import Testcard

pytestmark = pytest.mark.timeout(20)


@dataclass
class AttemptLog:
    """An attempt's record as a list of what was written."""

    newest: bool = True
    away: bool = False
    pointed: list[CheckpointRecord] = field(default_factory=list)
    resumes: list[CheckpointRecord] = field(default_factory=list)
    previews: int = 0

    async def point(self, checkpoint: CheckpointRecord) -> bool:
        if self.away:
            raise BrokerUnavailable("away")
        if self.newest:
            self.pointed.append(checkpoint)
        return self.newest

    async def resumed(self, checkpoint: CheckpointRecord) -> bool:
        self.resumes.append(checkpoint)
        return self.newest

    async def shown(self, previews: int) -> bool:
        self.previews = previews
        return self.newest


@pytest.fixture
def attempts() -> AttemptLog:
    return AttemptLog()


def work_of(spec, control, attempts, *, attempt=1, resume=None) -> Work:
    return Work(source_task(spec), spec, attempt, "t", control, attempts, resume)


def recorded(data: bytes, step: int, attempt: int = 1) -> CheckpointRecord:
    key = checkpoint_key("video_1", attempt, step)
    return CheckpointRecord(attempt, key, step, 2.0, hashlib.sha256(data).hexdigest())


async def saved(checkpoints: StoredCheckpoints, *made: Checkpoint) -> None:
    """Save from a thread, as sources do, and wait until all is stored."""
    await asyncio.to_thread(lambda: [checkpoints.save(checkpoint) for checkpoint in made])
    await checkpoints.close(flush=True)


async def test_a_checkpoint_is_stored_before_the_record_points_to_it(make_spec, store, control, attempts) -> None:
    checkpoints = StoredCheckpoints(work_of(make_spec(), control, attempts, attempt=3), store, attempts)
    stored_before = []
    point = attempts.point

    async def look(checkpoint: CheckpointRecord) -> bool:
        stored_before.append(store.objects[checkpoint.key])
        return await point(checkpoint)

    attempts.point = look
    await saved(checkpoints, Checkpoint(4, 2.0, b"latents"))

    assert stored_before == [b"latents"]
    assert attempts.pointed == [recorded(b"latents", 4, attempt=3)]


async def test_the_older_checkpoint_goes_after_the_record_has_moved_on(make_spec, store, control, attempts) -> None:
    old = recorded(b"old", 2)
    store.objects[old.key] = b"old"
    work = work_of(make_spec(), control, attempts, attempt=2, resume=Resume(old))

    await saved(StoredCheckpoints(work, store, attempts), Checkpoint(4, 2.0, b"new"))

    assert list(store.objects) == [checkpoint_key("video_1", 2, 4)]


async def test_a_superseded_attempt_takes_its_checkpoint_back(make_spec, store, control, attempts) -> None:
    attempts.newest = False

    await saved(
        StoredCheckpoints(work_of(make_spec(), control, attempts), store, attempts), Checkpoint(4, 2.0, b"late")
    )

    assert store.objects == {}


async def test_only_the_newest_of_those_that_wait_is_stored(make_spec, store, control, attempts) -> None:
    checkpoints = StoredCheckpoints(work_of(make_spec(), control, attempts), store, attempts)
    begun, go_on = asyncio.Event(), asyncio.Event()
    put = store.put

    async def slow(key: str, data: bytes) -> None:
        begun.set()
        await go_on.wait()
        await put(key, data)

    store.put = slow
    checkpoints.save(Checkpoint(1, 1.0, b"1"))
    await begun.wait()
    for step in (2, 3):
        checkpoints.save(Checkpoint(step, 1.0, b"x"))
    await asyncio.sleep(0)
    go_on.set()
    await checkpoints.close(flush=True)

    assert [record.step for record in attempts.pointed] == [1, 3]
    assert list(store.objects) == [checkpoint_key("video_1", 1, 3)]


@pytest.mark.parametrize("away", ["store", "broker"])
async def test_an_outage_costs_a_checkpoint_and_leaves_the_one_before(
    make_spec, store, control, attempts, caplog, away: str
) -> None:
    old = recorded(b"old", 2)
    store.objects[old.key] = b"old"
    attempts.away = away == "broker"

    async def unavailable(key: str, data: bytes) -> None:
        raise StoreUnavailable("away")

    if away == "store":
        store.put = unavailable
    work = work_of(make_spec(), control, attempts, attempt=2, resume=Resume(old))
    with caplog.at_level(logging.WARNING):
        await saved(StoredCheckpoints(work, store, attempts), Checkpoint(4, 1.0, b"new"))

    assert (store.objects[old.key], attempts.pointed) == (b"old", [])
    assert [record.message for record in caplog.records] == ["not stored"]


@pytest.mark.parametrize("found", [None, b"damaged"], ids=["gone", "damaged"])
async def test_a_checkpoint_that_cannot_be_read_is_not_used_and_said(
    make_spec, store, control, attempts, caplog, found: bytes | None
) -> None:
    old = recorded(b"latents", 2)
    if found is not None:
        store.objects[old.key] = found
    checkpoints = StoredCheckpoints(work_of(make_spec(), control, attempts, resume=Resume(old)), store, attempts)

    with caplog.at_level(logging.WARNING):
        assert await asyncio.to_thread(checkpoints.newest) is None

    assert [record.message for record in caplog.records] == ["not resumed"]


async def test_a_bug_while_storing_is_not_lost(make_spec, store, control, attempts) -> None:
    async def broken(key: str, data: bytes) -> None:
        raise TypeError("a bug")

    store.put = broken
    with pytest.raises(TypeError, match="a bug"):
        await saved(
            StoredCheckpoints(work_of(make_spec(), control, attempts), store, attempts), Checkpoint(1, 1.0, b"1")
        )


async def test_a_preview_is_a_picture_of_the_jobs_format(make_spec, store, control, attempts) -> None:
    spec = make_spec(kind=JobKind.IMAGE, cuts=(1,), file_format="png")
    checkpoints = StoredCheckpoints(work_of(spec, control, attempts), store, attempts)
    frames = np.full((1, 8, 8, 3), 200, np.uint8)

    await asyncio.to_thread(checkpoints.preview, 0, frames)
    await checkpoints.close(flush=True)

    assert (decode_picture(store.objects[preview_key("video_1", 1, 0)]) == 200).all()
    assert attempts.previews == 1


# --- the handler and the testcard ------------------------------------------------------------------------------------


async def run(spec, store, control, attempts, *, attempt=1, resume=None, card=None) -> list:
    handler = SourceHandler(card or Testcard(checkpoint_s=1e-9), store)
    return [record async for record in handler.chunks(work_of(spec, control, attempts, attempt=attempt, resume=resume))]


def pixels(store, records) -> list[list[int]]:
    return [loads(store.objects[record.key]).frames.tolist() for record in records]


async def interrupted(spec, store, new_control, attempts, at: int) -> CheckpointRecord:
    """Run an attempt that is handed back after ``at`` steps; return its checkpoint."""
    control = new_control()
    tick = control.tick

    def stopping(step: int | None = None, steps: int | None = None) -> None:
        tick(step, steps)
        if step == at:
            control.stop(handing_back=True)

    control.tick = stopping
    with pytest.raises(Stopped):
        await run(spec, store, control, attempts, card=Testcard(checkpoint_s=1e9))
    return attempts.pointed[-1]


async def test_work_that_is_handed_back_stores_its_last_step(make_spec, store, new_control, attempts) -> None:
    put = store.put

    async def slow(key: str, data: bytes) -> None:
        for _ in range(100):  # longer than the source takes to end
            await asyncio.sleep(0)
        await put(key, data)

    store.put = slow
    checkpoint = await interrupted(make_spec(steps=6), store, new_control, attempts, at=4)

    assert (checkpoint.step, list(store.objects)) == (4, [checkpoint.key])


async def test_the_next_attempt_goes_on_there_and_makes_the_same(make_spec, store, control, new_control) -> None:
    spec, first, second = make_spec(steps=6), AttemptLog(), AttemptLog()
    undisturbed = pixels(store, await run(spec, store, new_control(), AttemptLog(), attempt=9))
    checkpoint = await interrupted(spec, store, new_control, first, at=4)

    records = await run(spec, store, control, second, attempt=2, resume=Resume(checkpoint))

    assert [step for step, _ in control.ticks if step is not None] == [5, 6]
    assert second.resumes == [checkpoint]
    assert pixels(store, records) == undisturbed


async def test_a_checkpoint_of_another_spec_is_not_used(make_spec, store, control, new_control, attempts) -> None:
    checkpoint = await interrupted(make_spec(steps=6), store, new_control, AttemptLog(), at=4)

    await run(make_spec(steps=6, seeds=(8,)), store, control, attempts, attempt=2, resume=Resume(checkpoint))

    assert attempts.resumes == []
    assert [step for step, _ in control.ticks if step is not None] == [1, 2, 3, 4, 5, 6]


async def test_work_that_ends_stores_no_checkpoint(make_spec, store, control, attempts) -> None:
    control.stop()
    with pytest.raises(Stopped):
        await run(make_spec(), store, control, attempts)

    assert store.objects == {}


async def decoded(spec, store, new_control) -> Resume:
    """Run an attempt whose first output was stored in full, and return what it leaves."""
    attempts = AttemptLog()
    records = await run(spec, store, new_control(), attempts, card=Testcard(checkpoint_s=1.0))
    return Resume(attempts.pointed[-1], tuple(record for record in records if record.output == 0))


async def test_outputs_that_were_stored_are_taken_over_rather_than_decoded(
    make_spec, store, control, new_control
) -> None:
    spec = make_spec(seeds=(7, 8))
    resume = await decoded(spec, store, new_control)
    made: list[int] = []

    class Watched(Testcard):
        def chunks(self, spec, control, checkpoints):
            for item in super().chunks(spec, control, checkpoints):
                made.append(item.output if hasattr(item, "frames") else -1)
                yield item

    records = await run(spec, store, control, AttemptLog(), attempt=2, resume=resume, card=Watched(checkpoint_s=1.0))

    assert made == [-1, 1, 1]
    assert [record.key for record in records] == [
        chunk_key("video_1", 2, StageName.DENOISE, output, index) for output in (0, 1) for index in (0, 1)
    ]
    assert [r.attempt for r in records] == [2] * 4
    assert pixels(store, records[:2]) == pixels(store, resume.kept)


async def test_an_output_that_was_to_be_kept_and_is_gone_is_made_by_another_attempt(
    make_spec, store, control, new_control
) -> None:
    resume = await decoded(make_spec(), store, new_control)
    del store.objects[resume.kept[0].key]

    with pytest.raises(Retryable, match="to be kept"):
        await run(make_spec(), store, control, AttemptLog(), attempt=2, resume=resume, card=Testcard(checkpoint_s=1.0))


class Collected(NoCheckpoints):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def save(self, checkpoint: Checkpoint) -> None:
        self.steps.append(checkpoint.step)


def test_a_worker_that_begins_to_shut_down_gets_a_checkpoint_at_the_next_step(make_spec, control) -> None:
    tick, collected = control.tick, Collected()

    def draining(step: int | None = None, steps: int | None = None) -> None:
        if step == 2:
            control.drain()
        tick(step, steps)

    control.tick = draining
    list(Testcard(checkpoint_s=1e9).chunks(make_spec(steps=5), control, collected))

    assert collected.steps == [2, 5]


def test_checkpoints_are_written_by_the_time_that_has_passed(make_spec, control) -> None:
    collected = Collected()

    list(Testcard(step_s=0.01, checkpoint_s=0.025).chunks(make_spec(steps=7), control, collected))

    assert collected.steps == [3, 6, 7]


def test_no_checkpoint_is_written_when_they_are_off(make_spec, control) -> None:
    collected = Collected()

    list(Testcard(step_s=0.01).chunks(make_spec(), control, collected))

    assert collected.steps == []
