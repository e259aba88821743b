"""Source, two transforms and upload with chosen delays, over a real broker and store, against the slowest stage.

DESIGN section 16: at most 1.15 times the slowest stage and the first chunk.
"""

from __future__ import annotations

import asyncio
import time

from bench.servers import real_platform
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec, new_job_id
from vitascope_core.plan import InterpolateOptions, Options, Plan, StageName, UpscaleOptions
from vitascope_core.task import Queue, source_task
from vitascope_frames.chunk import Chunk
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.testcard import Testcard
from vitascope_frames.transform_handler import TransformHandler
from vitascope_platform.platform import Platform
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.worker import Worker
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler

CHUNKS, FRAMES = 20, 4
STEPS, STEP_S = 4, 0.25
DECODE_S, INTERPOLATE_S, UPSCALE_S = 0.1, 0.2, 0.35


class Delayed:
    """A transform that only takes time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        del options
        time.sleep(self._seconds)
        return chunk.with_frames(chunk.frames)


def _spec(clock_ns: int) -> JobSpec:
    frames = CHUNKS * FRAMES
    denoise = DenoiseSpec("x", 256, 256, STEPS, seeds=(1,), num_frames=frames)
    # An exponent of nought keeps the number of frames: what is measured is the way, not the work.
    plan = Plan(interpolate=InterpolateOptions(exp=0), upscale=UpscaleOptions(scale=1))
    name = new_job_id(JobKind.VIDEO, clock_ns)
    cuts = (FRAMES,) * CHUNKS
    return JobSpec(name, JobKind.VIDEO, "bench", "x", 0, 2**52, denoise, cuts, OutputSpec("mp4", 50), plan=plan)


async def _run(platform: Platform) -> float:
    """Return the seconds from publishing a job to its end."""
    settings, stop = WorkerSettings(), asyncio.Event()
    frames = platform.frames
    handlers = {
        Queue(StageName.DENOISE, "bench"): SourceHandler(Testcard(STEP_S, DECODE_S), frames),
        Queue(StageName.INTERPOLATE): TransformHandler(Delayed(INTERPOLATE_S), frames),
        Queue(StageName.UPSCALE): TransformHandler(Delayed(UPSCALE_S), frames),
        Queue(StageName.UPLOAD): FileUploadHandler(FileSink(), frames, platform.results),
    }
    workers = [
        asyncio.create_task(Worker(queue, handler, platform, settings).run(stop)) for queue, handler in handlers.items()
    ]
    spec = _spec(platform.clock.now_ns())
    begun = time.perf_counter()
    await platform.jobs.create_spec(spec)
    await platform.bus.publish(source_task(spec))
    async with platform.jobs.watch_end(spec.id) as ends:
        await anext(ends)
    taken = time.perf_counter() - begun
    stop.set()
    await asyncio.gather(*workers)
    return taken


async def measure() -> list[str]:
    """Return the lines of the report."""
    async with real_platform("bench") as platform:
        taken = await _run(platform)
    stages = {"source": STEPS * STEP_S + CHUNKS * DECODE_S, "upscale": CHUNKS * UPSCALE_S}
    first = STEPS * STEP_S + DECODE_S + INTERPOLATE_S
    bound = max(stages.values()) + first
    one_by_one = STEPS * STEP_S + CHUNKS * (DECODE_S + INTERPOLATE_S + UPSCALE_S)
    return [
        f"{taken:.2f} s; slowest stage and the first chunk's way to it {bound:.2f} s   ratio {taken / bound:.2f} "
        f"(budget 1.15); stage after stage {one_by_one:.2f} s   ratio {taken / one_by_one:.2f}"
    ]
