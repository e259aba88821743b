"""The work queue of a single process, with the manners of JetStream: counts, ack waits, delays, duplicates."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vitascope_core.ports import Clock, Delivery, Depth
from vitascope_core.task import Queue, Task
from vitascope_platform.clock import sleep_or

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Message:
    """A stored task.

    ``lease`` is the delivery that holds it, None while it waits; ``due`` is when it may be handed out, or for a held
    one when it is handed out again.
    """

    sequence: int
    task: Task
    headers: Mapping[str, str]
    due: float
    count: int = 0
    lease: int | None = None


class MemoryBus:
    """`vitascope_core.ports.Bus` in memory.

    Args:
        clock: Where ack waits and delays are read from.
        ack_wait_s: Silence after which a task is handed out again, seconds.
        duplicate_window_s: How long a message id is remembered, seconds.
        max_waiting: Waiting tasks of one transform at which `publish` blocks, so that a fast source does not fill the
            store ahead of a slow transform; None for no bound.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        ack_wait_s: float = 30.0,
        duplicate_window_s: float = 600.0,
        max_waiting: int | None = 2,
    ) -> None:
        self._clock = clock
        self.ack_wait_s = ack_wait_s
        self._window_s = duplicate_window_s
        self._max_waiting = max_waiting
        self._messages: dict[Queue, dict[int, _Message]] = {}
        self._seen: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    async def publish(
        self, task: Task, *, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """See `vitascope_core.ports.Bus.publish`."""
        name = message_id or task.message_id
        while task.stage.is_transform and self._max_waiting is not None:
            if self._is_duplicate(name) or (await self.depth(task.queue)).waiting < self._max_waiting:
                break
            await sleep_or(self._changed, self._clock, None)
        if self._is_duplicate(name):
            return
        self._seen[name] = self._clock.monotonic() + self._window_s
        self._store(task, dict(headers or {}))

    async def fetch(self, queue: Queue, limit: int, timeout_s: float) -> list[Delivery]:
        """See `vitascope_core.ports.Bus.fetch`."""
        deadline = self._clock.monotonic() + timeout_s
        while True:
            now = self._clock.monotonic()
            ready = [m for m in self._messages.get(queue, {}).values() if m.due <= now]
            if ready:
                return [self._hand_out(m) for m in sorted(ready, key=lambda m: m.sequence)[:limit]]
            if now >= deadline:
                return []
            soonest = min((m.due for m in self._messages.get(queue, {}).values()), default=deadline)
            await sleep_or(self._changed, self._clock, min(soonest, deadline) - now)

    async def purge(self, job_id: str) -> int:
        """See `vitascope_core.ports.Bus.purge`."""
        found = list(self._of(job_id))
        for message in found:
            self._remove(message)
        return len(found)

    async def count(self, job_id: str) -> int:
        """See `vitascope_core.ports.Bus.count`."""
        return sum(1 for _ in self._of(job_id))

    async def jobs(self) -> set[str]:
        """See `vitascope_core.ports.Bus.jobs`."""
        return {m.task.job_id for queue in self._messages.values() for m in queue.values()}

    async def depth(self, queue: Queue) -> Depth:
        """See `vitascope_core.ports.Bus.depth`."""
        messages = self._messages.get(queue, {}).values()
        held = sum(m.lease is not None and m.due > self._clock.monotonic() for m in messages)
        return Depth(len(messages) - held, held)

    def _store(self, task: Task, headers: Mapping[str, str]) -> None:
        number = next(self._numbers)
        self._messages.setdefault(task.queue, {})[number] = _Message(number, task, headers, self._clock.monotonic())
        self._tell()

    def _of(self, job_id: str) -> Iterator[_Message]:
        return (m for queue in self._messages.values() for m in queue.values() if m.task.job_id == job_id)

    def _is_duplicate(self, name: str) -> bool:
        now = self._clock.monotonic()
        # Names are remembered in order of time, so the stale ones are at the front.
        while self._seen and next(iter(self._seen.values())) <= now:
            del self._seen[next(iter(self._seen))]
        return name in self._seen

    def _hand_out(self, message: _Message) -> Delivery:
        message.count += 1
        message.lease = next(self._numbers)
        message.due = self._clock.monotonic() + self.ack_wait_s
        self._tell()
        return _MemoryDelivery(self, message)

    def _remove(self, message: _Message) -> None:
        self._messages.get(message.task.queue, {}).pop(message.sequence, None)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _MemoryDelivery:
    """`vitascope_core.ports.Delivery` of a `MemoryBus`."""

    def __init__(self, bus: MemoryBus, message: _Message) -> None:
        self._bus = bus
        self._message = message
        self._lease = message.lease
        self.task = message.task
        self.count = message.count
        self.headers = message.headers

    async def ack(self) -> None:
        """See `vitascope_core.ports.Delivery.ack`. Late acks count, as they do on JetStream."""
        self._bus._remove(self._message)

    async def nak(self, delay_s: float = 0.0) -> None:
        """See `vitascope_core.ports.Delivery.nak`."""
        if self._message.lease == self._lease:
            self._message.lease = None
            self._message.due = self._bus._clock.monotonic() + delay_s
            self._bus._tell()

    async def in_progress(self) -> None:
        """See `vitascope_core.ports.Delivery.in_progress`."""
        if self._message.lease == self._lease:
            self._message.due = self._bus._clock.monotonic() + self._bus.ack_wait_s
            self._bus._tell()

    async def requeue(self) -> None:
        """See `vitascope_core.ports.Delivery.requeue`."""
        self._bus._store(self.task, self.headers)
        self._bus._remove(self._message)
