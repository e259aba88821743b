"""The uploader with a disk of its own: ``python -m cramped_uploader``.

Over ``TMPDIR``, a folder, a file system of ``VITASCOPE_CRAMPED_KIB`` KiB is mounted that only this process sees.
Others reach it through `disk_of`. Needs Linux, and to be root or to be allowed user namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MOUNT = 'mount -t tmpfs -o size="$1"k tmpfs "$TMPDIR" && shift && exec "$@"'
ALONE = ["unshare", "--map-root-user", "--mount"]


def is_possible() -> bool:
    """Whether this machine lets us mount something for one process."""
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def disk_of(pid: int, folder: Path) -> Path:
    """Return the folder as the process sees it."""
    return Path(f"/proc/{pid}/root") / folder.relative_to("/")


if __name__ == "__main__":
    uploader = [sys.executable, "-m", "vitascope_uploader"]
    size = os.environ.pop("VITASCOPE_CRAMPED_KIB")
    os.execvp(ALONE[0], [*ALONE, "sh", "-c", MOUNT, "sh", size, *uploader])
