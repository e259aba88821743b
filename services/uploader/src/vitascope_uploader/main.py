"""The uploader as a service: wiring only."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_platform.platform import Platform
from vitascope_platform.service import Station, run_worker_service
from vitascope_uploader.service_settings import UploaderSettings
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler


def main() -> None:
    """Run the uploader until SIGTERM."""
    sys.exit(run_worker_service("uploader", UploaderSettings, wired))


@asynccontextmanager
async def wired(_: UploaderSettings, platform: Platform) -> AsyncIterator[Station]:
    """Bind the file writer to its stores."""
    handler = FileUploadHandler(FileSink(), platform.frames, platform.results, platform.result_prefix)
    yield Station(Queue(StageName.UPLOAD), handler)
