"""A transform for tests, as a service: ``python -m inverter_service`` serves the stage upscale with scale 1.

It inverts every pixel, so that a chunk that skipped it, or passed it twice, shows. ``VITASCOPE_INVERTER_DELAY_S`` makes
it slow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.card import StageCard
from vitascope_core.plan import Options, StageName
from vitascope_core.task import Queue
from vitascope_frames.chunk import Chunk
from vitascope_frames.transform_handler import TransformHandler
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service

CARD = StageCard(StageName.UPSCALE, scales=(1,))


class InverterSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="VITASCOPE_INVERTER_", frozen=True)

    delay_s: float = Field(default=0.0, ge=0)


@dataclass(frozen=True)
class InverterServiceSettings(ServiceSettings):
    inverter: InverterSettings = field(default_factory=InverterSettings)


class Inverter:
    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        del options
        time.sleep(self._delay_s)
        return chunk.with_frames(255 - chunk.frames)


@asynccontextmanager
async def wired(settings: InverterServiceSettings, platform: Platform) -> AsyncIterator[Station]:
    handler = TransformHandler(Inverter(settings.inverter.delay_s), platform.frames)
    yield Station(Queue(StageName.UPSCALE), handler, CARD)


if __name__ == "__main__":
    sys.exit(run_worker_service("inverter", InverterServiceSettings, wired))
