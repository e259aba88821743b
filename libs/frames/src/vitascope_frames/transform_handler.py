"""The handler of a transform: one stored chunk in, one stored chunk or segment out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from vitascope_core.errors import InputLost
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord
from vitascope_core.keys import chunk_key
from vitascope_core.plan import Plan, StageName
from vitascope_core.ports import ObjectStore
from vitascope_frames.chunk import Chunk
from vitascope_frames.chunk_object import fetch, record_of
from vitascope_frames.codec import dumps, loads
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.segment_object import sealed
from vitascope_frames.segments import encode_segment, makes_segments
from vitascope_frames.stages import Transform


class TransformHandler:
    """Fetches, transforms and stores one chunk a delivery.

    A worker holds two deliveries, so that transfers and encoding overlap compute; compute itself is one at a time.
    """

    def __init__(self, transform: Transform, store: ObjectStore) -> None:
        """Bind the transform to where chunks come from and go to: the frames store."""
        self._transform = transform
        self._store = store
        # One device, one thread: two chunks at once would only share it, and need its memory twice.
        self._device = ThreadPoolExecutor(1, thread_name_prefix="transform")

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
        loop = asyncio.get_running_loop()
        chunk, seconds = await loop.run_in_executor(self._device, self._apply, work, data)
        del data
        work.control.tick()
        record, stored = await asyncio.to_thread(_encode, work, chunk, seconds)
        del chunk
        work.control.tick()
        await self._store.put(record.key, stored)
        yield record

    def _apply(self, work: Work, data: bytes) -> tuple[Chunk, float]:
        chunk = loads(data)
        if (chunk.output, chunk.index) != (work.task.output, work.task.index):
            raise InputLost(f"chunk {chunk.output}-{chunk.index} is stored under another chunk's name")
        begun = time.perf_counter()
        result = self._transform.apply(chunk, work.spec.plan.options(work.task.stage))
        return result, time.perf_counter() - begun


def stage_before(plan: Plan, stage: StageName) -> StageName:
    """Return the stage whose chunks a transform of the plan reads."""
    stages = (plan.source, *plan.transforms)
    return stages[stages.index(stage) - 1]


def _encode(work: Work, chunk: Chunk, seconds: float) -> tuple[ChunkRecord, bytes]:
    begun = time.perf_counter()
    segment = makes_segments(work.spec, work.task.stage)
    if segment:
        quality = VideoQuality.of(work.spec.output.compression)
        data = sealed(encode_segment(chunk.frames, len(chunk.frames), chunk.start, chunk.fps, quality))
    else:
        data = dumps(chunk)
    seconds += time.perf_counter() - begun
    return record_of(work, chunk, size=len(data), seconds=seconds, segment=segment), data
