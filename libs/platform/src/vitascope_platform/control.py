"""The control of one delivery: progress out of running work, cancellation into it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from vitascope_core.errors import Stopped
from vitascope_core.once import Once
from vitascope_core.ports import Clock


class StopReason(StrEnum):
    """Why work is told to stop."""

    ENDED = "the job has ended"
    SUPERSEDED = "a newer attempt has taken over"
    SHUTDOWN = "the worker shuts down"
    STALLED = "no sign of life"


class TaskControl:
    """`vitascope_core.ports.Control`, shared by the event loop and the thread that computes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = Once()
        self._drain = Once()
        self._last_tick = clock.monotonic()
        self._waits = 0
        self.reason: StopReason | None = None
        self.step = 0
        self.steps = 0

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        """See `vitascope_core.ports.Control.tick`."""
        self._last_tick = self._clock.monotonic()
        if step is not None:
            self.step = step
        if steps is not None:
            self.steps = steps
        if self.reason is not None:
            raise Stopped(self.reason)

    @property
    def stopped(self) -> bool:
        """See `vitascope_core.ports.Control.stopped`."""
        return self.reason is not None

    @property
    def silence_s(self) -> float:
        """Seconds since the last sign of life; none while the work waits for another stage."""
        return 0.0 if self._waits else self._clock.monotonic() - self._last_tick

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a wait for another stage: silence there is not this task's."""
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            self._last_tick = self._clock.monotonic()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """See `vitascope_core.ports.Control.on_stop`."""
        self._stop.listen(callback)

    def stop(self, reason: StopReason) -> None:
        """Tell the work to stop. The first reason stands."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
        self._stop.happen()

    @property
    def handing_back(self) -> bool:
        """See `vitascope_core.ports.Control.handing_back`."""
        return self.reason is StopReason.SHUTDOWN

    def on_draining(self, callback: Callable[[], None]) -> None:
        """See `vitascope_core.ports.Control.on_draining`."""
        self._drain.listen(callback)

    def drain(self) -> None:
        """Tell the work that the worker begins to shut down."""
        self._drain.happen()
