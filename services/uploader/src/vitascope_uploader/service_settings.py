"""The uploader's settings as a service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_frames.media_file import MediaLimits
from vitascope_frames.media_process import SILENCE_S
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.settings import WorkerSettings
from vitascope_uploader.ingest_handler import IngestOptions

_MEBIBYTE = 1 << 20


class UploadWorkerSettings(WorkerSettings):
    """As for every worker, but more at once: most of their time uploads wait for chunks."""

    concurrency: int = Field(default=4, ge=1, le=64)


class IngestSettings(BaseSettings):
    """How files that clients send are read. Environment: ``VITASCOPE_INGEST_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_INGEST_", frozen=True, extra="forbid")

    concurrency: int = Field(default=2, ge=1, le=64)
    """Files read at once, each in a process of its own."""
    max_pixels: int = Field(default=MediaLimits().max_pixels, ge=1)
    """Largest picture, width times height."""
    max_duration_s: float = Field(default=MediaLimits().max_duration_s, gt=0)
    """Longest file, seconds."""
    max_streams: int = Field(default=MediaLimits().max_streams, ge=1)
    """Most streams of a file: pictures, sound, subtitles and whatever else there is."""
    memory_mib: int = Field(default=4096, ge=0)
    """What the process that reads a file may allocate, MiB; 0 for as much as it likes."""
    silence_s: float = Field(default=SILENCE_S, gt=0)
    """Time without a sign of life after which that process is ended, seconds."""

    @property
    def options(self) -> IngestOptions:
        """The same as values for the handler."""
        limits = MediaLimits(self.max_pixels, self.max_duration_s, self.max_streams)
        return IngestOptions(limits, self.memory_mib * _MEBIBYTE, self.silence_s)


@dataclass(frozen=True)
class UploaderSettings(ServiceSettings):
    """All that the uploader is told."""

    worker: WorkerSettings = field(default_factory=UploadWorkerSettings)
    ingest: IngestSettings = field(default_factory=IngestSettings)
