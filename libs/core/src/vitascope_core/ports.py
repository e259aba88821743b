"""Ports: what the product needs from a broker, a store, a clock. Adapters fill them; contract tests hold the adapters.

The shapes are those of NATS JetStream and S3, so that nothing in the product depends on running in one process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vitascope_core.task import Queue, Task

Buffer = bytes | bytearray | memoryview


class Clock(Protocol):
    """Time, so that tests can move it."""

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and time-outs."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970, for people and deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of this clock."""


class Delivery(Protocol):
    """One hand-out of a task.

    Settled once, by `ack` or `nak`; silence for longer than the queue's ack wait hands the task out again. A call on a
    delivery whose time is over raises nothing and may or may not count: an ack is no fence.
    """

    @property
    def task(self) -> Task:
        """The task."""

    @property
    def count(self) -> int:
        """Which hand-out of this message it is, from 1."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What was published beside the task: trace context."""

    async def ack(self) -> None:
        """Remove the message; returns when the broker has done so. Raises BrokerUnavailable: outcome unknown."""

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give the message back, to be handed out again after ``delay_s`` seconds."""

    async def in_progress(self) -> None:
        """Start the ack wait anew."""

    async def requeue(self) -> None:
        """Give the message back uncounted: a copy with a fresh id is stored, behind all others, then this one removed.

        The copy is of the bytes, so that fields of a newer version survive. Raises BrokerUnavailable: outcome unknown;
        there may then be two copies.
        """


@dataclass(frozen=True, slots=True)
class Depth:
    """How full a queue is.

    A task whose ack wait has passed may still count as in flight until it is handed out again.
    """

    waiting: int
    in_flight: int


class Bus(Protocol):
    """A work queue: each message goes to one worker until it is acknowledged."""

    async def publish(
        self, task: Task, *, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Store a message; a second one with the same id within the duplicate window is dropped.

        May block while a transform's queue is full.

        Args:
            task: What is to be done.
            message_id: Name for duplicate detection; ``task.message_id`` if None.
            headers: Trace context.

        Raises:
            BrokerUnavailable: The outcome is unknown; repeat with the same id.
        """

    async def fetch(self, queue: Queue, limit: int, timeout_s: float) -> list[Delivery]:
        """Return 1 to ``limit`` deliveries, oldest first, as soon as there is one; an empty list after ``timeout_s``.

        Raises:
            BrokerUnavailable: The broker is away.
        """

    async def purge(self, job_id: str) -> int:
        """Remove all messages of a job, handed out or not, and return how many there were."""

    async def count(self, job_id: str) -> int:
        """Return how many messages of a job there are, handed out or not."""

    async def jobs(self) -> set[str]:
        """Return the ids of all jobs that have a message, handed out or not."""

    async def depth(self, queue: Queue) -> Depth:
        """Return how full a queue is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value at a revision. ``value`` is None when the key was deleted (only seen by watchers)."""

    key: str
    value: bytes | None
    revision: int


class KeyValue(Protocol):
    """A bucket of small values. Keys are dot-separated tokens; a prefix is a whole key, ends with a dot, or is empty.

    Every method raises BrokerUnavailable when the bucket is away; after a write the outcome is then unknown.
    """

    async def get(self, key: str) -> Entry | None:
        """Return the entry, or None."""

    async def create(self, key: str, value: bytes) -> int:
        """Store a value under a key that must not exist; return its revision. Raises Conflict."""

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Replace the value if the key is still at ``revision``; return the new one. Raises Conflict."""

    async def put(self, key: str, value: bytes) -> int:
        """Store a value whatever was there; return its revision."""

    async def delete(self, key: str) -> None:
        """Remove a key; no error if it is not there."""

    async def entries(self, prefix: str) -> list[Entry]:
        """Return the entries whose keys start with ``prefix``, sorted by key."""

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Entry | None]]:
        """Follow a prefix: first every entry there is, then None once, then each change as it happens."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of an object without reading it."""

    key: str
    size: int


class ObjectStore(Protocol):
    """A bucket of objects. Keys are slash-separated. A put is atomic: readers see the whole object or none.

    Every method raises StoreUnavailable when the store is away.
    """

    async def put(self, key: str, data: Buffer) -> None:
        """Store an object, replacing what was there."""

    async def put_file(self, key: str, path: Path) -> None:
        """Store a file's content; the file may be moved away."""

    async def get(self, key: str) -> bytes:
        """Return a whole object. Raises ObjectMissing."""

    async def stat(self, key: str) -> ObjectInfo | None:
        """Return an object's size, or None."""

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield an object's bytes from ``start``, ``length`` of them or all, piece by piece. Raises ObjectMissing."""

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose keys start with ``prefix``, sorted by key."""

    async def delete(self, key: str) -> None:
        """Remove an object; no error if it is not there."""

    async def delete_prefix(self, prefix: str) -> int:
        """Remove every object whose key starts with ``prefix``; return how many."""


class ResultLinks(Protocol):
    """Where clients download finished files without going through the gateway."""

    def link(self, key: str, content_type: str, filename: str) -> str | None:
        """Return a URL of a results object, or None where the gateway streams it. Computes and waits for nothing.

        Args:
            key: The object.
            content_type: What the URL should answer with, if the store can be told.
            filename: Under which name browsers should save it, if the store can be told.
        """


class Control(Protocol):
    """What running work says and hears. Safe to call from any thread."""

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        """Give a sign of life, with the denoising step if there is one.

        Raises:
            Stopped: The work must end now, without a result.
        """

    @property
    def stopped(self) -> bool:
        """Whether the next `tick` raises."""

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, from any thread, when the work is told to stop; at once if it has been."""

    @property
    def handing_back(self) -> bool:
        """Whether the stop gives the work to another worker, so that what was reached is worth keeping."""

    def on_draining(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, from any thread, when the worker begins to shut down; at once if it has begun.

        The work goes on, but may be cut off at any moment from then on.
        """
