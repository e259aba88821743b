"""The folder that a server keeps its jobs in, for one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from vitascope_cli.errors import CommandFailed


def default_folder() -> Path:
    """Return the folder used when none is named, for example ``~/.local/state/vitascope``."""
    return platformdirs.user_state_path("vitascope", appauthor=False)


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Make the folder and hold it while the block runs.

    Raises:
        CommandFailed: Another process holds it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CommandFailed(f"cannot use the state folder {folder}: {error.strerror}") from error
    try:
        try:
            # The kernel lets go of it with the process, however that ends.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise CommandFailed(
                f"another server (process {owner}) uses the state folder {folder}; name another with --state-dir"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield folder
    finally:
        os.close(handle)
