"""A transform that obeys, fails or dies, as a service: ``python -m tools.nemesis.inverter``.

It serves the stage upscale with scale 1 and inverts every pixel, so that a chunk that skipped it, or passed it twice,
shows. Pictures of two sizes are a poison to it: of one it dies as the kernel would end it, the other it refuses.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidWeights
from vitascope_core.plan import Options, StageName
from vitascope_core.task import Queue
from vitascope_frames.chunk import Chunk
from vitascope_frames.transform_handler import TransformHandler
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service

DEADLY = (48, 16)
"""Width and height of the pictures that it dies of."""
REFUSED = (16, 48)
"""Width and height of the pictures that it cannot invert, however often it is asked."""

CARD = StageCard(StageName.UPSCALE, scales=(1,))


class InverterSettings(BaseSettings):
    """Its pace. Environment: ``VITASCOPE_INVERTER_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_INVERTER_", frozen=True)

    delay_s: float = Field(default=0.0, ge=0)
    """Seconds that a chunk takes."""


@dataclass(frozen=True)
class InverterServiceSettings(ServiceSettings):
    """All that the inverter is told."""

    inverter: InverterSettings = field(default_factory=InverterSettings)


class Inverter:
    """Inverts every pixel of a chunk."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        """Return the chunk inverted.

        Raises:
            InvalidWeights: Its pictures are of the size `REFUSED`.
        """
        del options
        height, width = chunk.frames.shape[1:3]
        if (width, height) == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if (width, height) == REFUSED:
            raise InvalidWeights(f"nothing is known of pictures of {width}x{height}")
        time.sleep(self._delay_s)
        return chunk.with_frames(255 - chunk.frames)


@asynccontextmanager
async def _wired(settings: InverterServiceSettings, platform: Platform) -> AsyncIterator[Station]:
    handler = TransformHandler(Inverter(settings.inverter.delay_s), platform.frames)
    yield Station(Queue(StageName.UPSCALE), handler, CARD)


if __name__ == "__main__":
    sys.exit(run_worker_service("inverter", InverterServiceSettings, _wired))
