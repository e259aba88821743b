"""The uploader as a service: wiring only."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service
from vitascope_uploader.ingest_handler import IngestHandler
from vitascope_uploader.service_settings import UploaderSettings
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler


def main() -> None:
    """Run the uploader until SIGTERM."""
    sys.exit(run_worker_service("uploader", UploaderSettings, wired))


@asynccontextmanager
async def wired(settings: UploaderSettings, platform: Platform) -> AsyncIterator[Sequence[Station]]:
    """Bind the writer and the reader of files to their stores."""
    writer = FileUploadHandler(FileSink(), platform.frames, platform.results, platform.result_prefix)
    reader = IngestHandler(platform.frames, settings.ingest.options)
    yield (
        Station(Queue(StageName.UPLOAD), writer),
        Station(Queue(StageName.INGEST), reader, concurrency=settings.ingest.concurrency),
    )
