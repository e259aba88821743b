"""The interpolator as a service: wiring only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_frames.transform_handler import TransformHandler
from vitascope_interpolator.interpolator import Interpolator
from vitascope_interpolator.service_settings import InterpolatorServiceSettings
from vitascope_interpolator.settings import card_of
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service


def main() -> None:
    """Run the interpolator until SIGTERM."""
    sys.exit(run_worker_service("interpolator", InterpolatorServiceSettings, wired))


@asynccontextmanager
async def wired(settings: InterpolatorServiceSettings, platform: Platform) -> AsyncIterator[Station]:
    """Load the weights and bind the stage to the frames store.

    Raises:
        InvalidSettings, InvalidWeights, DeviceOutOfMemory: See `Interpolator`.
    """
    told = settings.interpolator.interpolator
    interpolator = Interpolator(told)
    await asyncio.to_thread(interpolator.load)
    yield Station(Queue(StageName.INTERPOLATE), TransformHandler(interpolator, platform.frames), card_of(told))
