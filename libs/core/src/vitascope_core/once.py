"""Something that happens once, and whoever wants to be called then."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Once:
    """Callbacks for one event. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._happened = False
        self._callbacks: list[Callable[[], None]] = []

    def listen(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when it happens; at once if it has happened."""
        with self._lock:
            if not self._happened:
                self._callbacks.append(callback)
                return
        callback()

    def happen(self) -> None:
        """Call everybody who listens, each once; from the second time on nothing happens."""
        with self._lock:
            self._happened = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
