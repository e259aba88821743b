"""A gateway over memory and local adapters, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from vitascope_core import keys
from vitascope_core.card import Defaults, Limits, Mode, ModelCard, StageCard
from vitascope_core.job import (
    EndState,
    FileRecord,
    JobEnd,
    JobKind,
    JobSpec,
    SourceRecord,
    SourceState,
    Usage,
    new_token,
)
from vitascope_core.plan import StageName
from vitascope_core.ports import Bus, KeyValue, ResultLinks
from vitascope_core.task import Queue
from vitascope_gateway.app import create_app
from vitascope_gateway.board import Board
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.submission import Submission
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.cards import Cards
from vitascope_platform.clock import SystemClock
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.platform import Platform
from vitascope_platform.store_local import LocalStore

VIDEO_CARD = ModelCard(
    pool="clips",
    id="org/clips",
    aliases=("sora-2",),
    modes=(Mode.TEXT_TO_VIDEO,),
    width=Limits(16, 512, 16),
    height=Limits(16, 512, 16),
    num_frames=Limits(5, 81, 4),
    num_inference_steps=Limits(1, 50),
    defaults=Defaults(64, 48, 4, num_frames=9, fps=Fraction(16), guidance_scale=5.0, negative_prompt="blurry"),
    max_outputs=3,
    max_pixels=512 * 512 * 40,
    max_prompt_chars=200,
    created=1_700_000_000,
)
IMAGE_CARD = ModelCard(
    pool="stills",
    id="stills",
    aliases=("gpt-image-1",),
    modes=(Mode.TEXT_TO_IMAGE,),
    width=Limits(16, 512, 16),
    height=Limits(16, 512, 16),
    num_frames=Limits(1, 1),
    num_inference_steps=Limits(1, 50),
    defaults=Defaults(64, 64, 4),
    honours=(),
)
INTERPOLATOR = StageCard(
    StageName.INTERPOLATE, exps=(1, 2), flow_scales=(0.5, 1.0), models=("org/rife", "/weights/rife")
)
UPSCALER = StageCard(StageName.UPSCALE, scales=(2, 4))
PICTURES = Queue(StageName.DENOISE, IMAGE_CARD.pool)


@dataclass
class Stack:
    """A gateway and everything it is wired to."""

    app: FastAPI
    client: httpx.AsyncClient
    board: Board
    submission: Submission
    bucket: KeyValue
    jobs: JobStore
    cards: Cards
    bus: Bus
    frames: LocalStore
    results: LocalStore
    settings: GatewaySettings

    async def settled(self, check: Callable[[], object]) -> None:
        """Wait until the board has heard what the check looks for."""
        for _ in range(2000):
            if check():
                return
            await asyncio.sleep(0.002)
        raise TimeoutError

    async def is_untouched(self) -> bool:
        """Whether nothing was stored and nothing was queued."""
        depths = [await self.bus.depth(Queue(StageName.DENOISE, card.pool)) for card in (VIDEO_CARD, IMAGE_CARD)]
        return not await self.bucket.entries("") and not any(d.waiting or d.in_flight for d in depths)

    async def complete(self, job_id: str, content: bytes = b"0123456789", **usage: object) -> JobEnd:
        """Do what the workers do: claim, store one file per output, end."""
        spec = await self.jobs.spec(job_id)
        assert spec is not None
        claim = await self.jobs.source(job_id)
        record = SourceRecord(1, "worker", SourceState.DECODED, step=4, steps=4)
        await self.jobs.swap_source(job_id, record, claim.revision if claim else None)
        token, files = new_token(), []
        for output in range(spec.outputs):
            for variant, kind in variants_of(spec):
                key = f"{keys.result_prefix('', job_id)}{token}/{variant}-{output}"
                await self.results.put(key, content if variant == str(spec.kind) else variant.encode())
                files.append(
                    FileRecord(
                        output,
                        variant,
                        key,
                        kind,
                        len(content),
                        spec.denoise.width,
                        spec.denoise.height,
                        frames=spec.out_frames or 1,
                        fps=spec.out_fps or Fraction(0),
                    )
                )
        end = JobEnd(EndState.COMPLETED, token, spec.created_ms + 5000, files=tuple(files), usage=Usage(**usage))
        return await self.jobs.create_end(job_id, end)

    async def work(self, end: JobEnd | None = None, queue: Queue = PICTURES) -> None:
        """Take image tasks and finish their jobs, or end them as ``end`` says."""
        while True:
            for delivery in await self.bus.fetch(queue, 1, 60):
                if end is None:
                    await self.complete(delivery.task.job_id, b"PNG")
                else:
                    await self.jobs.create_end(delivery.task.job_id, end)
                await delivery.ack()


def variants_of(spec: JobSpec) -> list[tuple[str, str]]:
    if spec.kind is JobKind.IMAGE:
        return [("image", f"image/{spec.output.format}")]
    return [("video", "video/mp4"), ("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")]


@asynccontextmanager
async def open_stack(
    tmp_path: Path,
    *,
    cards: tuple[ModelCard | StageCard, ...] = (VIDEO_CARD, IMAGE_CARD),
    bucket: KeyValue | None = None,
    bus: Bus | None = None,
    links: ResultLinks | None = None,
    **settings: object,
) -> AsyncIterator[Stack]:
    clock = SystemClock()
    bucket = bucket or MemoryKeyValue()
    jobs, shown = JobStore(bucket), Cards(MemoryKeyValue())
    for card in cards:
        await shown.put(card)
    bus = bus or MemoryBus(clock)
    frames, results = LocalStore(tmp_path / "frames"), LocalStore(tmp_path / "results")
    chosen = GatewaySettings(**settings)
    async with Board.follow(jobs, shown, retry_s=0.01) as board:
        assert await board.wait_ready(5)
        platform = Platform(bus, jobs, shown, frames, results, clock)
        submission = Submission(board=board, platform=platform, max_queued=chosen.max_queued)
        app = create_app(
            board=board,
            submission=submission,
            results_store=results,
            frames_store=frames,
            settings=chosen,
            clock=clock,
            links=links,
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            yield Stack(app, client, board, submission, bucket, jobs, shown, bus, frames, results, chosen)


@pytest.fixture
def video_card() -> ModelCard:
    return VIDEO_CARD


@pytest.fixture
def image_card() -> ModelCard:
    return IMAGE_CARD


@pytest.fixture
def transforms() -> tuple[StageCard, ...]:
    return (INTERPOLATOR, UPSCALER)


@pytest.fixture
def stacks(tmp_path: Path) -> Callable[..., object]:
    """Open gateways with other cards, buckets, buses or settings."""
    return lambda **changes: open_stack(tmp_path, **changes)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with open_stack(tmp_path) as opened:
        yield opened


@pytest.fixture
def flat_spec() -> Callable[..., JobSpec]:
    """Make specs of videos without an admission; ids sort by ``number``."""
    from vitascope_core.job import DenoiseSpec, OutputSpec, new_job_id

    def make(number: int = 0, **changes: object) -> JobSpec:
        ms = 1_700_000_000_000 + number
        spec = JobSpec(
            id=new_job_id(JobKind.VIDEO, ms * 1_000_000),
            kind=JobKind.VIDEO,
            pool="clips",
            model="org/clips",
            created_ms=ms,
            deadline_ms=ms + 86_400_000,
            denoise=DenoiseSpec("a cat", 64, 48, 4, (1,), num_frames=9),
            cuts=(5, 4),
            output=OutputSpec("mp4", 50),
        )
        return replace(spec, **changes)

    return make
