"""The uploader's settings as a service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field

from vitascope_platform.environment import ServiceSettings
from vitascope_platform.settings import WorkerSettings


class UploadWorkerSettings(WorkerSettings):
    """As for every worker, but more at once: most of their time uploads wait for chunks."""

    concurrency: int = Field(default=4, ge=1, le=64)


@dataclass(frozen=True)
class UploaderSettings(ServiceSettings):
    """All that the uploader is told."""

    worker: WorkerSettings = field(default_factory=UploadWorkerSettings)
