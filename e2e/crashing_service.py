"""The services with something in them that kills the process: ``python -m crashing_service``.

``VITASCOPE_CRASHING_STAGE`` names the stage. A job whose seed is `POISON` of that stage makes the process read
address 0 in the thread that computes, each time; one with the seed `HUNGRY` asks its source for more memory than the
process may have; one with the seed `HANGING` keeps the first source that gets it for ever. Every other job goes
through. ``VITASCOPE_CRASHING_DEATHS`` is a file that grows by a line with every death and with that.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.card import StageCard
from vitascope_core.job import JobSpec
from vitascope_core.plan import Options, StageName
from vitascope_core.task import Queue
from vitascope_frames.chunk import Chunk
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.stages import Artifact
from vitascope_frames.testcard import Testcard, colour_of, testcard_card
from vitascope_frames.transform_handler import TransformHandler
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler

POISON = {StageName.DENOISE: 101, StageName.UPSCALE: 102, StageName.UPLOAD: 103}
HUNGRY, HANGING = 104, 105
POOL = "main"

_MEBIBYTE = 1024 * 1024


class CrashingSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="VITASCOPE_CRASHING_", frozen=True)

    stage: StageName
    deaths: Path


@dataclass(frozen=True)
class CrashingServiceSettings(ServiceSettings):
    crashing: CrashingSettings = field(default_factory=CrashingSettings)  # type: ignore[arg-type]


def die(settings: CrashingSettings) -> None:
    """End the process as a bug in a library does."""
    with settings.deaths.open("a") as file:
        file.write(f"{settings.stage}\n")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def hang_once(settings: CrashingSettings) -> None:
    """Never come back, unless somebody did not before."""
    if settings.deaths.exists() and "hung" in settings.deaths.read_text():
        return
    with settings.deaths.open("a") as file:
        file.write("hung\n")
    threading.Event().wait()


def exhaust() -> None:
    """Ask for more memory than is left to the process: raises MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 64 * _MEBIBYTE, limits[1]))
    try:
        bytearray(256 * _MEBIBYTE)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


class CrashingTestcard(Testcard):
    def __init__(self, settings: CrashingSettings) -> None:
        super().__init__()
        self._settings = settings

    def chunks(self, spec: JobSpec, *rest: Any) -> Iterator[Any]:
        if POISON[StageName.DENOISE] in spec.denoise.seeds:
            die(self._settings)
        if HUNGRY in spec.denoise.seeds:
            exhaust()
        if HANGING in spec.denoise.seeds:
            hang_once(self._settings)
        return super().chunks(spec, *rest)


class CrashingInverter:
    def __init__(self, settings: CrashingSettings) -> None:
        self._settings = settings

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        del options
        if np.array_equal(chunk.frames[0, -1, -1], colour_of(POISON[StageName.UPSCALE])):
            die(self._settings)
        return chunk.with_frames(255 - chunk.frames)


class CrashingSink(FileSink):
    def __init__(self, settings: CrashingSettings) -> None:
        self._settings = settings

    def write(self, spec: JobSpec, *rest: Any) -> list[Artifact]:
        if POISON[StageName.UPLOAD] in spec.denoise.seeds:
            die(self._settings)
        return super().write(spec, *rest)


@asynccontextmanager
async def wired(settings: CrashingServiceSettings, platform: Platform) -> AsyncIterator[Station]:
    stage, frames = settings.crashing.stage, platform.frames
    if stage is StageName.DENOISE:
        source = SourceHandler(CrashingTestcard(settings.crashing), frames)
        yield Station(Queue(stage, POOL), source, testcard_card(POOL))
    elif stage is StageName.UPSCALE:
        transform = TransformHandler(CrashingInverter(settings.crashing), frames)
        yield Station(Queue(stage), transform, StageCard(stage, scales=(1,)))
    else:
        sink = CrashingSink(settings.crashing)
        yield Station(Queue(stage), FileUploadHandler(sink, frames, platform.results, platform.result_prefix))


if __name__ == "__main__":
    sys.exit(run_worker_service("crashing", CrashingServiceSettings, wired))
