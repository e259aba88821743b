"""Every stage in one process: the workers, buckets and stores of a cluster, wired to a folder instead of a network."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitascope_cli.errors import FAILED, say
from vitascope_core.card import ModelCard, StageCard
from vitascope_core.errors import Stalled
from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.stages import Source, Transform
from vitascope_frames.transform_handler import TransformHandler
from vitascope_gateway.board import Board
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.submission import Submission
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.cards import Cards
from vitascope_platform.clock import SystemClock
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_sqlite import SqliteFile
from vitascope_platform.patience import Patience, PatientStore
from vitascope_platform.platform import Platform
from vitascope_platform.reaper import Reaper
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.store_local import LocalStore
from vitascope_platform.worker import Worker
from vitascope_uploader.ingest_handler import IngestHandler
from vitascope_uploader.service_settings import IngestSettings
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler

log = logging.getLogger(__name__)

UPLOADS = 4
"""Uploads at once: most of their time they wait for chunks."""


@dataclass(frozen=True, slots=True)
class Stages:
    """What computes in this process.

    Attributes:
        card: What the source can do.
        source: Makes the frames.
        transforms: Each with its card, in any order.
    """

    card: ModelCard
    source: Source
    transforms: Sequence[tuple[StageCard, Transform]] = ()


@dataclass(frozen=True, slots=True)
class Transforms:
    """What computes in a process that has no model: it processes files.

    Attributes:
        transforms: Each with its card, in any order.
    """

    transforms: Sequence[tuple[StageCard, Transform]]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """The settings of all parts."""

    worker: WorkerSettings
    gateway: GatewaySettings
    ingest: IngestSettings = field(default_factory=IngestSettings)


class Node:
    """The running stages. Made by `running`."""

    def __init__(self, platform: Platform, board: Board, submission: Submission, settings: NodeSettings) -> None:
        self.platform = platform
        self.board = board
        self.submission = submission
        self.settings = settings
        self.stop = asyncio.Event()
        self.workers: list[asyncio.Task[None]] = []

    async def failure(self) -> None:
        """Raise what ended a worker, as soon as one ends although nobody told it to.

        After a stall the process ends here: the thread that hangs would keep everything that waits for it from ending.
        """
        done, _ = await asyncio.wait(self.workers, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if isinstance(error, Stalled):
                say(error)
                os._exit(FAILED)
            task.result()


@asynccontextmanager
async def running(folder: Path, stages: Stages | Transforms, settings: NodeSettings) -> AsyncIterator[Node]:
    """Run every stage on the state in ``folder`` while the block runs; then hand back what does not finish in time.

    Unfinished jobs that the folder holds are queued again before anything is taken.
    """
    clock = SystemClock()
    patience = Patience(clock, settings.worker.outage_s)
    async with AsyncExitStack() as stack:
        file = stack.enter_context(SqliteFile(folder / "jobs.db"))
        platform = Platform(
            bus=MemoryBus(clock, ack_wait_s=settings.worker.ack_wait_s),
            jobs=JobStore(file.bucket("jobs")),
            cards=Cards(file.bucket("cards")),
            frames=PatientStore(LocalStore(folder / "frames"), patience),
            results=PatientStore(LocalStore(folder / "results", durable=True), patience),
            clock=clock,
            patience=patience,
        )
        await _publish_cards(platform.cards, stages)
        # Whoever worked on them is gone, or the folder's lock would not be ours.
        revived = await Reaper(platform, grace_s=0.0).sweep()
        if revived.revived:
            log.warning("unfinished jobs queued again", extra={"jobs": len(revived.revived)})
        board = await stack.enter_async_context(Board.follow(platform.jobs, platform.cards))
        await board.wait_ready(timeout_s=60.0)
        submission = Submission(board=board, platform=platform, max_queued=settings.gateway.max_queued)
        node = Node(platform, board, submission, settings)
        node.workers = [asyncio.create_task(work) for work in _work(node, stages)]
        try:
            yield node
        finally:
            node.stop.set()
            await asyncio.gather(*node.workers, return_exceptions=True)


async def _publish_cards(cards: Cards, stages: Stages | Transforms) -> None:
    """Show what this process serves, and nothing that an earlier one did."""
    for card in await cards.all():
        if isinstance(card, ModelCard):
            await cards.remove_pool(card.pool)
        else:
            await cards.remove_stage(card.stage)
    if isinstance(stages, Stages):
        await cards.put(stages.card)
    for stage_card, _ in stages.transforms:
        await cards.put(stage_card)


def _work(node: Node, stages: Stages | Transforms) -> list[Coroutine[Any, Any, None]]:
    platform, settings, frames = node.platform, node.settings, node.platform.frames
    reads = settings.worker.model_copy(update={"concurrency": settings.ingest.concurrency})
    uploads = settings.worker.model_copy(update={"concurrency": UPLOADS})
    workers = [
        Worker(Queue(StageName.INGEST), IngestHandler(frames, settings.ingest.options), platform, reads),
        Worker(Queue(StageName.UPLOAD), FileUploadHandler(FileSink(), frames, platform.results), platform, uploads),
    ]
    if isinstance(stages, Stages):
        queue = Queue(StageName.DENOISE, stages.card.pool)
        workers.append(Worker(queue, SourceHandler(stages.source, frames), platform, settings.worker))
    for card, transform in stages.transforms:
        workers.append(Worker(Queue(card.stage), TransformHandler(transform, frames), platform, settings.worker))
    return [*(worker.run(node.stop) for worker in workers), Reaper(platform).run(node.stop)]
