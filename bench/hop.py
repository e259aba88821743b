"""A 16 MiB hop through a transform against the GET and PUT that it consists of (DESIGN section 16: at most 1.3)."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np

from bench.servers import real_platform
from vitascope_core import keys
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec, SourceRecord, SourceState
from vitascope_core.plan import InterpolateOptions, Options, Plan, StageName
from vitascope_core.task import Queue, Task
from vitascope_frames.chunk import Chunk
from vitascope_frames.codec import dumps
from vitascope_frames.transform_handler import TransformHandler
from vitascope_platform.platform import Platform
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.worker import Worker

HOPS = 24
SIDE = 2364  # one frame of 16 MiB


class Identity:
    """A transform that costs nothing."""

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        del options
        return chunk.with_frames(chunk.frames)


def _spec() -> JobSpec:
    denoise = DenoiseSpec("x", SIDE, SIDE, 1, seeds=(1,), num_frames=HOPS)
    plan = Plan(interpolate=InterpolateOptions())
    output = OutputSpec("mp4", 50)
    return JobSpec("video_1", JobKind.VIDEO, "bench", "x", 0, 2**52, denoise, (1,) * HOPS, output, plan=plan)


async def _store_inputs(platform: Platform, spec: JobSpec) -> list[bytes]:
    """Store the job as if its source had decoded every chunk; return the chunks' bytes."""
    await platform.jobs.create_spec(spec)
    await platform.jobs.swap_source(spec.id, SourceRecord(1, "bench", SourceState.DECODED), None)
    frames = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), np.uint8)
    first = Chunk(frames, 0, 0, 0, last=False, fps=Fraction(16))
    chunks = [dumps(replace(first, index=i, start=i, last=i == HOPS - 1)) for i in range(HOPS)]
    for index, data in enumerate(chunks):
        await platform.frames.put(keys.chunk_key(spec.id, 1, StageName.DENOISE, 0, index), data)
    return chunks


async def _hop(platform: Platform, worker: Worker, index: int) -> float:
    task = Task("video_1", StageName.INTERPOLATE, attempt=1, index=index)
    await platform.bus.publish(task)
    begun = time.perf_counter()
    (delivery,) = await platform.bus.fetch(task.queue, 1, timeout_s=5)
    await worker.settle(delivery)
    return time.perf_counter() - begun


async def _get_and_put(platform: Platform, data: bytes, index: int) -> float:
    begun = time.perf_counter()
    await platform.frames.get(keys.chunk_key("video_1", 1, StageName.DENOISE, 0, index))
    await platform.frames.put(f"bench/{index}", data)
    return time.perf_counter() - begun


async def measure() -> list[str]:
    """Return the lines of the report."""
    async with real_platform("bench") as platform:
        spec = _spec()
        chunks = await _store_inputs(platform, spec)
        handler = TransformHandler(Identity(), platform.frames)
        worker = Worker(Queue(StageName.INTERPOLATE), handler, platform, WorkerSettings())
        hops, plain = [], []
        for index, data in enumerate(chunks):
            plain.append(await _get_and_put(platform, data, index))
            hops.append(await _hop(platform, worker, index))
            await asyncio.sleep(0)
    hop, both = statistics.median(hops), statistics.median(plain)
    return [f"hop {hop * 1e3:.0f} ms, its GET and PUT {both * 1e3:.0f} ms at p50   ratio {hop / both:.2f} (budget 1.3)"]
