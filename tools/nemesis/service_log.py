"""What the services logged: kept in a file, and watched for what nobody expected."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Self

_TRACEBACK = "Traceback (most recent call last)"


class ServiceLog:
    """Writes every line of every process to a file; called from a thread for each process.

    Attributes:
        tracebacks: Where in the file errors begin that no code was written for, and whose they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tracebacks: list[str] = []
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._lines = 0
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._file.close()

    def heard(self, name: str, line: str) -> None:
        """Take in a line of a process."""
        with self._lock:
            if self._file.closed:
                return
            self._lines += 1
            self._file.write(f"{time.monotonic() - self._begun:8.2f} {name:<12} | {line}\n")
            if _TRACEBACK in line:
                self.tracebacks.append(f"{name}, line {self._lines} of {self.path}")
