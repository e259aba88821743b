"""Room for temporary files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import gettempdir

from vitascope_core.errors import DiskFull
from vitascope_frames.h264 import FULL


@contextmanager
def room_errors() -> Iterator[None]:
    """Turn the operating system's error for a disk without room into `DiskFull`."""
    try:
        # Found once, by writing: where no folder has room at that time, it is as if there were none.
        gettempdir()
    except FileNotFoundError as error:
        raise DiskFull(f"no folder for temporary files can be written to: {error.strerror}") from error
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"the folder for temporary files has no room left: {error.strerror}") from error
        raise
