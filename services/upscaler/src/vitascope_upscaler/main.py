"""The upscaler as a service: wiring only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_frames.transform_handler import TransformHandler
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service
from vitascope_upscaler.service_settings import UpscalerServiceSettings
from vitascope_upscaler.upscaler import Upscaler


def main() -> None:
    """Run the upscaler until SIGTERM."""
    sys.exit(run_worker_service("upscaler", UpscalerServiceSettings, wired))


@asynccontextmanager
async def wired(settings: UpscalerServiceSettings, platform: Platform) -> AsyncIterator[Station]:
    """Load the weights and bind the stage to the frames store.

    Raises:
        InvalidSettings, InvalidWeights, DeviceOutOfMemory: See `Upscaler`.
    """
    upscaler = Upscaler(settings.upscaler.upscaler)
    card = await asyncio.to_thread(upscaler.load)
    yield Station(Queue(StageName.UPSCALE), TransformHandler(upscaler, platform.frames), card)
