from __future__ import annotations

import asyncio
import threading
import weakref
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from vitascope_core.errors import InputLost, Stopped, StoreUnavailable
from vitascope_core.geometry import interpolated_start
from vitascope_core.handling import Work
from vitascope_core.job import JobKind
from vitascope_core.keys import chunk_key
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_core.task import Task, source_task
from vitascope_frames import testcard, transform_handler
from vitascope_frames.chunk import Chunk
from vitascope_frames.codec import dumps, loads
from vitascope_frames.segments import join_segments
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.testcard import Testcard
from vitascope_frames.transform_handler import TransformHandler
from vitascope_frames.video_file import read_frames

pytestmark = pytest.mark.timeout(20)


class Enlarger:
    """Repeats every pixel."""

    def apply(self, chunk: Chunk, options) -> Chunk:
        return chunk.with_frames(chunk.frames.repeat(options.scale, axis=1).repeat(options.scale, axis=2))


class Streamer(Enlarger):
    """The same, some frames at a time; counts how many of its parts are alive."""

    def __init__(self, size=2) -> None:
        self.size, self.parts, self.most, self.closed = size, [], 0, 0

    def stream(self, chunk: Chunk, options):
        try:
            for first in range(0, len(chunk.frames), self.size):
                some = chunk.frames[first : first + self.size]
                made = self.apply(replace(chunk, frames=some), options).frames
                self.parts.append(weakref.ref(made))
                self.most = max(self.most, sum(part() is not None for part in self.parts))
                yield made
                del made
        finally:
            self.closed += 1


class Doubler:
    """Repeats every frame but the last of the output, which is enough to count."""

    def apply(self, chunk: Chunk, options) -> Chunk:
        before = chunk.frames if chunk.lead is None else np.concatenate([chunk.lead[None], chunk.frames])
        frames = np.repeat(before, 2, axis=0)[(0 if chunk.lead is None else 1) : -1]
        start = interpolated_start(chunk.start, 2)
        return replace(chunk, frames=frames, lead=None, start=start, fps=chunk.fps * 2)


def source_work(spec, control) -> Work:
    return Work(source_task(spec), spec, attempt=3, token="t", control=control)


def chunk_work(spec, stage, control, *, output=0, index=0) -> Work:
    task = Task(spec.id, stage, attempt=3, output=output, index=index)
    return Work(task, spec, attempt=3, token="t", control=control)


async def run_source(spec, store, control):
    return [record async for record in SourceHandler(Testcard(), store).chunks(source_work(spec, control))]


async def run_transform(transform, spec, stage, store, control, **which):
    handler = TransformHandler(transform, store)
    (record,) = [record async for record in handler.chunks(chunk_work(spec, stage, control, **which))]
    return record


async def test_a_source_stores_each_chunk_and_says_so(make_spec, store, control) -> None:
    spec = make_spec(cuts=(3, 2), seeds=(1, 2))

    records = await run_source(spec, store, control)

    assert [(r.output, r.index, r.start, r.frames, r.last) for r in records] == [
        (0, 0, 0, 3, False),
        (0, 1, 3, 2, True),
        (1, 0, 0, 3, False),
        (1, 1, 3, 2, True),
    ]
    for record in records:
        assert record.key == chunk_key(spec.id, 3, StageName.DENOISE, record.output, record.index)
        assert record.size == len(store.objects[record.key])
        assert (record.attempt, record.stage, record.segment) == (3, StageName.DENOISE, False)
        assert [testcard.read_number(f) for f in loads(store.objects[record.key]).frames] == list(
            range(record.start, record.start + record.frames)
        )


async def test_a_record_is_yielded_before_the_next_chunk_is_made(make_spec, store, control) -> None:
    third_wanted, go_on = threading.Event(), threading.Event()

    class Held(Testcard):
        def chunks(self, spec, control, checkpoints):
            for chunk in super().chunks(spec, control, checkpoints):
                if chunk.index == 2:
                    third_wanted.set()
                    assert go_on.wait(10)
                yield chunk

    handler = SourceHandler(Held(), store)
    async with aclosing(handler.chunks(source_work(make_spec(cuts=(1, 1, 1)), control))) as records:
        await anext(records)
        second = await anext(records)
        assert await asyncio.to_thread(third_wanted.wait, 10)
        assert second.key in store.objects
        go_on.set()


async def test_the_seconds_of_a_chunk_do_not_count_the_wait_for_the_worker(make_spec, store, control) -> None:
    handler = SourceHandler(Testcard(chunk_s=0.03), store)

    async with aclosing(handler.chunks(source_work(make_spec(cuts=(1, 1, 1)), control))) as records:
        await anext(records)
        await asyncio.sleep(0.5)  # the second chunk is made meanwhile, the third may not begin
        await anext(records)
        third = await anext(records)

    assert 0.03 <= third.seconds < 0.5


async def test_leaving_a_source_early_closes_it(make_spec, store, control) -> None:
    closed = threading.Event()

    class Watched(Testcard):
        def chunks(self, spec, control, checkpoints):
            try:
                yield from super().chunks(spec, control, checkpoints)
            finally:
                closed.set()

    async with aclosing(SourceHandler(Watched(), store).chunks(source_work(make_spec(), control))) as records:
        await anext(records)

    assert closed.is_set()


async def test_a_store_that_is_away_ends_a_source_as_an_outage(make_spec, store, control) -> None:
    async def away(key, data) -> None:
        raise StoreUnavailable(key)

    store.put = away

    with pytest.raises(StoreUnavailable):
        await run_source(make_spec(), store, control)


async def test_a_stopped_source_raises_and_stores_nothing(make_spec, store, control) -> None:
    control.stop()

    with pytest.raises(Stopped):
        await run_source(make_spec(), store, control)
    assert store.objects == {}


async def test_a_transform_reads_the_stage_before_it_in_the_plan(make_spec, store, control) -> None:
    plan = Plan(interpolate=InterpolateOptions(), upscale=UpscaleOptions(scale=2))
    spec = make_spec(cuts=(3, 2), plan=plan)
    await run_source(spec, store, control)

    between = await run_transform(Doubler(), spec, StageName.INTERPOLATE, store, control, index=1)
    last = await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control, index=1)

    assert (between.start, between.frames, between.segment) == (5, 4, False)
    assert loads(store.objects[between.key]).fps == Fraction(32)
    assert (last.start, last.frames, last.last, last.segment) == (5, 4, True, True)
    assert last.key == chunk_key(spec.id, 3, StageName.UPSCALE, 0, 1)
    assert last.size == len(store.objects[last.key])


async def test_segments_of_all_chunks_join_into_the_whole_video(make_spec, store, control, tmp_path) -> None:
    spec = make_spec(cuts=(3, 1, 2), plan=Plan(upscale=UpscaleOptions(scale=2)))
    await run_source(spec, store, control)

    records = [
        await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control, index=index) for index in (2, 0, 1)
    ]
    ordered = sorted(records, key=lambda record: record.index)
    file = join_segments((store.objects[record.key] for record in ordered), spec.out_fps, tmp_path / "0.mp4")

    assert (file.width, file.height) == (128, 96)
    assert [testcard.read_number(frame) for _, frame in read_frames(file.path, range(6))] == list(range(6))


async def test_a_segment_is_encoded_with_the_jobs_quality(make_spec, store, control) -> None:
    sizes = {}
    for compression in (90, 35):
        spec = make_spec(cuts=(8,), plan=Plan(upscale=UpscaleOptions(scale=2)), compression=compression)
        await run_source(spec, store, control)
        sizes[compression] = (await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control)).size

    assert sizes[90] > sizes[35]


async def test_pictures_stay_raw_behind_the_upscaler(make_spec, store, control) -> None:
    spec = make_spec(kind=JobKind.IMAGE, cuts=(1,), plan=Plan(upscale=UpscaleOptions(scale=2)))
    await run_source(spec, store, control)

    record = await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control)

    assert not record.segment
    assert loads(store.objects[record.key]).frames.shape == (1, 96, 128, 3)


async def test_an_input_that_is_gone_is_a_lost_input(make_spec, store, control) -> None:
    spec = make_spec(plan=Plan(upscale=UpscaleOptions()))

    with pytest.raises(InputLost, match=r"denoise/0-0 is gone"):
        await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control)


def damaged(data: bytes, damage: str) -> bytes:
    return data[:-1] if damage == "cut short" else dumps(replace(loads(data), index=1))


@pytest.mark.parametrize("damage", ["cut short", "another chunk"])
async def test_an_input_that_is_damaged_is_a_lost_input(make_spec, store, control, damage) -> None:
    spec = make_spec(plan=Plan(upscale=UpscaleOptions()))
    (first, _) = await run_source(spec, store, control)
    store.objects[first.key] = damaged(store.objects[first.key], damage)

    with pytest.raises(InputLost):
        await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control)


async def test_a_store_that_is_away_ends_a_transform_as_an_outage(make_spec, store, control) -> None:
    async def away(key) -> bytes:
        raise StoreUnavailable(key)

    store.get = away

    with pytest.raises(StoreUnavailable):
        await run_transform(
            Enlarger(), make_spec(plan=Plan(upscale=UpscaleOptions())), StageName.UPSCALE, store, control
        )


async def test_a_stopped_transform_stores_nothing(make_spec, store, control) -> None:
    spec = make_spec(plan=Plan(upscale=UpscaleOptions()))
    before = {record.key for record in await run_source(spec, store, control)}

    class StopsMeanwhile(Enlarger):
        def apply(self, chunk, options):
            control.stop()
            return super().apply(chunk, options)

    with pytest.raises(Stopped):
        await run_transform(StopsMeanwhile(), spec, StageName.UPSCALE, store, control)
    assert set(store.objects) == before


@pytest.mark.parametrize("kind", [Enlarger, Streamer])
async def test_one_transform_computes_one_chunk_at_a_time(make_spec, store, control, kind) -> None:
    spec = make_spec(cuts=(2, 2, 2, 2), plan=Plan(upscale=UpscaleOptions(scale=1)))
    await run_source(spec, store, control)
    busy = threading.Lock()
    overlaps = []

    class Exclusive(kind):
        def apply(self, chunk, options):
            overlaps.append(not busy.acquire(blocking=False))
            threading.Event().wait(0.01)
            busy.release()
            return super().apply(chunk, options)

    handler = TransformHandler(Exclusive(), store)

    async def one(index: int) -> None:
        async for _ in handler.chunks(chunk_work(spec, StageName.UPSCALE, control, index=index)):
            pass

    await asyncio.gather(*map(one, range(4)))

    assert overlaps == [False] * 4


async def test_every_phase_of_a_transform_is_a_sign_of_life(make_spec, store, control, new_control) -> None:
    spec = make_spec(plan=Plan(upscale=UpscaleOptions()))
    await run_source(spec, store, new_control())

    await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control)

    assert len(control.ticks) == 3  # fetched, transformed, encoded


async def test_a_stored_segment_is_a_playable_file_that_starts_at_its_own_time(
    make_spec, store, control, tmp_path
) -> None:
    spec = make_spec(cuts=(3, 2), plan=Plan(upscale=UpscaleOptions(scale=2)))
    await run_source(spec, store, control)
    record = await run_transform(Enlarger(), spec, StageName.UPSCALE, store, control, index=1)
    path = tmp_path / "segment.mp4"
    path.write_bytes(store.objects[record.key])

    with av.open(path) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]

    assert times == [Fraction(3, 16), Fraction(4, 16)]


UPSCALED = Plan(upscale=UpscaleOptions(scale=2))


async def test_frames_that_are_streamed_make_the_same_segment(make_spec, store, control) -> None:
    spec = make_spec(cuts=(7, 5), plan=UPSCALED)
    await run_source(spec, store, control)
    stored = []
    for transform in (Enlarger(), Streamer()):
        record = await run_transform(transform, spec, StageName.UPSCALE, store, control, index=1)
        stored.append((replace(record, seconds=0), store.objects[record.key]))

    assert stored[0] == stored[1]
    assert stored[0][0].segment


async def test_pictures_are_not_streamed(make_spec, store, control) -> None:
    spec = make_spec(kind=JobKind.IMAGE, cuts=(1,), plan=UPSCALED)
    await run_source(spec, store, control)
    transform = Streamer()

    record = await run_transform(transform, spec, StageName.UPSCALE, store, control)

    assert (record.segment, transform.parts) == (False, [])


@pytest.mark.parametrize("frames", [12, 60])
async def test_few_enlarged_frames_are_held_however_long_the_chunk_is(make_spec, store, control, frames) -> None:
    spec = make_spec(cuts=(frames,), plan=UPSCALED)
    await run_source(spec, store, control)
    transform = Streamer()

    await run_transform(transform, spec, StageName.UPSCALE, store, control)

    assert len(transform.parts) == frames / 2
    assert transform.most <= 4  # one is made, one is ready, one is handed over, one is encoded


async def test_every_part_that_is_streamed_is_a_sign_of_life(make_spec, store, control, new_control) -> None:
    spec = make_spec(cuts=(6,), plan=UPSCALED)
    await run_source(spec, store, new_control())

    await run_transform(Streamer(), spec, StageName.UPSCALE, store, control)

    assert len(control.ticks) == 2 + 3  # fetched, encoded; the parts


async def test_a_stream_is_stopped_between_its_parts_and_stores_nothing(make_spec, store, control) -> None:
    spec = make_spec(cuts=(40,), plan=UPSCALED)
    before = {record.key for record in await run_source(spec, store, control)}

    class StopsMeanwhile(Streamer):
        def apply(self, chunk, options):
            if len(self.parts) == 3:
                control.stop()
            return super().apply(chunk, options)

    transform = StopsMeanwhile()
    with pytest.raises(Stopped):
        await run_transform(transform, spec, StageName.UPSCALE, store, control)

    assert set(store.objects) == before
    assert (len(transform.parts) < 8, transform.closed) == (True, 1)


@pytest.mark.parametrize("fails", ["stream", "encoder"])
async def test_a_stream_that_fails_is_told_and_leaves_the_device_to_the_next(
    make_spec, store, control, monkeypatch, fails
) -> None:
    spec = make_spec(cuts=(8, 8), plan=UPSCALED)
    await run_source(spec, store, control)

    class FailsOnce(Streamer):
        def apply(self, chunk, options):
            if fails == "stream" and not chunk.index and len(self.parts) == 2:
                raise InputLost("on purpose")
            return super().apply(chunk, options)

    def encode(frames, count, start, *rest):
        if fails == "encoder" and not start:
            next(frames)
            raise InputLost("on purpose")
        return transform_handler_encode(frames, count, start, *rest)

    transform_handler_encode = transform_handler.encode_segment
    monkeypatch.setattr(transform_handler, "encode_segment", encode)
    transform = FailsOnce()
    handler = TransformHandler(transform, store)

    with pytest.raises(InputLost, match="on purpose"):
        await anext(handler.chunks(chunk_work(spec, StageName.UPSCALE, control)))
    record = await anext(handler.chunks(chunk_work(spec, StageName.UPSCALE, control, index=1)))

    assert (record.frames, transform.closed) == (8, 2)


async def test_a_chunk_has_the_device_while_the_one_before_it_is_still_encoded(
    make_spec, store, control, monkeypatch
) -> None:
    spec = make_spec(cuts=(4, 4), plan=UPSCALED)
    await run_source(spec, store, control)
    second_begun, waited, encode = threading.Event(), [], transform_handler.encode_segment

    def slow_to_end(frames, count, start, *rest):
        data = encode(frames, count, start, *rest)
        if not start:
            waited.append(second_begun.wait(10))
        return data

    class Telling(Streamer):
        def apply(self, chunk, options):
            if chunk.index:
                second_begun.set()
            return super().apply(chunk, options)

    monkeypatch.setattr(transform_handler, "encode_segment", slow_to_end)
    handler = TransformHandler(Telling(), store)
    works = [chunk_work(spec, StageName.UPSCALE, control, index=index) for index in range(2)]
    await asyncio.gather(*(anext(handler.chunks(work)) for work in works))

    assert waited == [True]
