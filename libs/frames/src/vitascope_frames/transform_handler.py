"""The handler of a transform: one stored chunk in, one stored chunk or segment out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from vitascope_core.errors import InputLost
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord
from vitascope_core.keys import chunk_key
from vitascope_core.plan import Plan, StageName
from vitascope_core.ports import ObjectStore
from vitascope_frames.chunk import Chunk, Frames
from vitascope_frames.chunk_object import fetch, record_of
from vitascope_frames.codec import dumps, loads
from vitascope_frames.file_errors import errors_name_file
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.pump import drain, pump
from vitascope_frames.segment_object import sealed
from vitascope_frames.segments import encode_segment, makes_segments
from vitascope_frames.stages import StreamingTransform, Transform


class TransformHandler:
    """Fetches, transforms and stores one chunk a delivery.

    A worker holds two deliveries, so that transfers and encoding overlap compute; compute itself is one at a time. The
    frames of a segment are encoded as a transform that streams makes them: then memory does not grow with the chunk.
    """

    def __init__(self, transform: Transform, store: ObjectStore) -> None:
        """Bind the transform to where chunks come from and go to: the frames store."""
        self._transform = transform
        self._store = store
        # One device, one thread, one chunk: two at once would only share it, and need its memory twice.
        self._device = ThreadPoolExecutor(1, thread_name_prefix="transform")
        self._turn = asyncio.Lock()

    async def chunks(self, work: Work) -> AsyncIterator[ChunkRecord]:
        """Store the transformed chunk of the task and yield its record.

        Raises:
            Stopped: The control said so.
            InputLost: The chunk of the stage before is gone or damaged.
            StoreUnavailable: The store is away.
            Retryable, Final: From the transform.
        """
        task = work.task
        before = stage_before(work.spec.plan, task.stage)
        key = chunk_key(work.spec.id, work.attempt, before, task.output, task.index)
        data = await fetch(self._store, key)

        work.control.tick()
        with errors_name_file(work.spec):
            if makes_segments(work.spec, task.stage) and isinstance(self._transform, StreamingTransform):
                chunk = await asyncio.to_thread(_given, work, data)
                del data
                record, stored = await self._streamed(work, self._transform, chunk)
            else:
                loop = asyncio.get_running_loop()
                async with self._turn:
                    chunk, seconds = await loop.run_in_executor(self._device, self._apply, work, data)
                del data
                work.control.tick()
                record, stored = await asyncio.to_thread(_packed, work, chunk, seconds)
        del chunk
        work.control.tick()
        await self._store.put(record.key, stored)
        yield record

    def _apply(self, work: Work, data: bytes) -> tuple[Chunk, float]:
        chunk = _given(work, data)
        begun = time.perf_counter()
        result = self._transform.apply(chunk, work.spec.plan.options(work.task.stage))
        return result, time.perf_counter() - begun

    async def _streamed(self, work: Work, transform: StreamingTransform, chunk: Chunk) -> tuple[ChunkRecord, bytes]:
        """Encode frames while the next ones are made; the next chunk's turn is when the last one is made."""
        watch = _Stopwatch()

        def encoded(parts: Iterator[Frames]) -> bytes:
            return _segment(work, chunk, _singly(parts))

        async with aclosing(self._parts(work, transform, chunk, watch)) as parts:
            data = await drain(parts, encoded)
        return record_of(work, chunk, size=len(data), seconds=watch.seconds, segment=True), data

    async def _parts(
        self, work: Work, transform: StreamingTransform, chunk: Chunk, watch: _Stopwatch
    ) -> AsyncGenerator[Frames, None]:
        async with self._turn:
            watch.start()
            made = transform.stream(chunk, work.spec.plan.options(work.task.stage))
            async with aclosing(pump(made, self._device)) as parts:
                async for part in parts:
                    work.control.tick()
                    yield part
                    del part  # or it would live while the next is made


class _Stopwatch:
    """Tells the time since a chunk's turn came."""

    def __init__(self) -> None:
        self._begun = 0.0

    def start(self) -> None:
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun


def stage_before(plan: Plan, stage: StageName) -> StageName:
    """Return the stage whose chunks a transform of the plan reads."""
    stages = (plan.source, *plan.transforms)
    return stages[stages.index(stage) - 1]


def _given(work: Work, data: bytes) -> Chunk:
    chunk = loads(data)
    if (chunk.output, chunk.index) != (work.task.output, work.task.index):
        raise InputLost(f"chunk {chunk.output}-{chunk.index} is stored under another chunk's name")
    return chunk


def _packed(work: Work, chunk: Chunk, seconds: float) -> tuple[ChunkRecord, bytes]:
    begun = time.perf_counter()
    segment = makes_segments(work.spec, work.task.stage)
    data = _segment(work, chunk, chunk.frames) if segment else dumps(chunk)
    seconds += time.perf_counter() - begun
    return record_of(work, chunk, size=len(data), seconds=seconds, segment=segment), data


def _segment(work: Work, chunk: Chunk, frames: Iterable[Frames]) -> bytes:
    """Encode frames that stand for those of the chunk."""
    quality = VideoQuality.of(work.spec.output.compression)
    return sealed(encode_segment(frames, len(chunk.frames), chunk.start, chunk.fps, quality))


def _singly(parts: Iterator[Frames]) -> Iterator[Frames]:
    for part in parts:
        yield from part
        del part  # or it would live while the next is awaited
