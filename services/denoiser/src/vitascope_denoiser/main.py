"""The denoiser as a service: wiring only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from vitascope_core.card import ModelCard
from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_denoiser.child import ChildEngine
from vitascope_denoiser.service_settings import DenoiserServiceSettings, DenoiserSettings
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.stages import Source
from vitascope_frames.testcard import Testcard, testcard_card
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service


def main() -> None:
    """Run the denoiser until SIGTERM."""
    sys.exit(run_worker_service("denoiser", DenoiserServiceSettings, wired))


@asynccontextmanager
async def wired(settings: DenoiserServiceSettings, platform: Platform) -> AsyncIterator[Station]:
    """Load the model and bind it to the frames store."""
    async with loaded(settings.denoiser) as (card, source):
        yield Station(Queue(StageName.DENOISE, card.pool), SourceHandler(source, platform.frames), card)


@asynccontextmanager
async def loaded(settings: DenoiserSettings) -> AsyncIterator[tuple[ModelCard, Source]]:
    """Load what is served and keep it while the block runs.

    Raises:
        InvalidModel, InvalidSettings, DeviceOutOfMemory, EngineCrashed: See `ChildEngine.start`.
    """
    if settings.is_testcard:
        card = testcard_card(settings.engine.pool_slug)
        name = settings.served_model_name or card.id
        interval_s = settings.checkpoint_interval
        source = Testcard(settings.testcard_step_s, settings.testcard_chunk_s, interval_s)
        yield replace(card, id=name, resumable=interval_s > 0), source
        return
    engine = ChildEngine(settings.engine)
    try:
        yield await asyncio.to_thread(engine.start), engine
    finally:
        await asyncio.to_thread(engine.close)
