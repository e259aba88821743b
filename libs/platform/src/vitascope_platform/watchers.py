"""Watching a bucket whose writers live in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from vitascope_core.ports import Entry


class Watchers:
    """The watchers of one bucket; the bucket tells them each change after it is stored."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[Entry], str] = {}

    def tell(self, entry: Entry) -> None:
        """Hand a change to everyone who watches its key."""
        for queue, prefix in self._queues.items():
            if entry.key.startswith(prefix):
                queue.put_nowait(entry)

    @asynccontextmanager
    async def watch(
        self, prefix: str, snapshot: Callable[[str], Awaitable[list[Entry]]]
    ) -> AsyncIterator[AsyncIterator[Entry | None]]:
        """See `vitascope_core.ports.KeyValue.watch`; ``snapshot`` reads the entries there are."""
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        self._queues[queue] = prefix
        try:
            yield self._follow(queue, prefix, snapshot)
        finally:
            del self._queues[queue]

    async def _follow(
        self, queue: asyncio.Queue[Entry], prefix: str, snapshot: Callable[[str], Awaitable[list[Entry]]]
    ) -> AsyncIterator[Entry | None]:
        seen = 0
        for entry in await snapshot(prefix):
            seen = max(seen, entry.revision)
            yield entry
        yield None
        while True:
            entry = await queue.get()
            # The queue was opened before the snapshot was read: what the snapshot showed is not told twice.
            if entry.revision > seen:
                yield entry
