"""Riding out outages: a store or a broker that is away comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from vitascope_core.errors import Outage
from vitascope_core.ports import Buffer, Clock, ObjectInfo, ObjectStore
from vitascope_platform.clock import sleep_or

T = TypeVar("T")
log = logging.getLogger(__name__)


class Patience:
    """Repeats a call while it raises `Outage`.

    Args:
        clock: Where the pauses are taken.
        limit_s: How long one call is repeated before its last `Outage` is raised, seconds.
        pause_s: First pause; each is twice the one before, up to 5 seconds.
    """

    def __init__(self, clock: Clock, limit_s: float = 300.0, pause_s: float = 0.2) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._pause_s = pause_s
        self._given_up = asyncio.Event()

    def give_up(self) -> None:
        """Raise the outages that are being ridden out, and every later one, at once: the process has no time left."""
        self._given_up.set()

    async def rest(self, seconds: float) -> None:
        """Wait for so long, unless the process has no time left."""
        await sleep_or(self._given_up, self._clock, seconds)

    async def __call__(self, call: Callable[[], Awaitable[T]], limit_s: float | None = None) -> T:
        """Return what ``call`` returns.

        Args:
            call: Safe to repeat: the outcome of a failed one is unknown.
            limit_s: Another limit for this call, seconds.

        Raises:
            Outage: The other side was away for the whole limit.
        """
        limit_s = self._limit_s if limit_s is None else limit_s
        start, pause = self._clock.monotonic(), self._pause_s
        while True:
            try:
                return await call()
            except Outage as error:
                left = start + limit_s - self._clock.monotonic()
                if left <= 0 or self._given_up.is_set():
                    raise
                log.warning("waiting for an outage to end", extra={"error": str(error)})
                await sleep_or(self._given_up, self._clock, min(pause, left))
                pause = min(pause * 2, 5.0)


class PatientStore:
    """An object store whose calls ride out outages, so that finished frames are not computed again for one."""

    def __init__(self, store: ObjectStore, patience: Patience) -> None:
        self._store = store
        self._patience = patience

    async def put(self, key: str, data: Buffer) -> None:
        """See `vitascope_core.ports.ObjectStore.put`."""
        await self._patience(lambda: self._store.put(key, data))

    async def put_file(self, key: str, path: Path) -> None:
        """See `vitascope_core.ports.ObjectStore.put_file`."""
        await self._patience(lambda: self._store.put_file(key, path))

    async def get(self, key: str) -> bytes:
        """See `vitascope_core.ports.ObjectStore.get`."""
        return await self._patience(lambda: self._store.get(key))

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `vitascope_core.ports.ObjectStore.stat`."""
        return await self._patience(lambda: self._store.stat(key))

    def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `vitascope_core.ports.ObjectStore.read`. Not repeated: a part has been handed on."""
        return self._store.read(key, start, length)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """See `vitascope_core.ports.ObjectStore.list`."""
        return await self._patience(lambda: self._store.list(prefix))

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.ObjectStore.delete`."""
        await self._patience(lambda: self._store.delete(key))

    async def delete_prefix(self, prefix: str) -> int:
        """See `vitascope_core.ports.ObjectStore.delete_prefix`."""
        return await self._patience(lambda: self._store.delete_prefix(prefix))
