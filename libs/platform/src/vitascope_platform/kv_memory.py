"""A key-value bucket in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from vitascope_core.errors import Conflict
from vitascope_core.ports import Entry
from vitascope_platform.watchers import Watchers


class MemoryKeyValue:
    """`vitascope_core.ports.KeyValue` over a dict: for tests and for what need not outlive the process."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._revision = 0
        self._watchers = Watchers()

    async def get(self, key: str) -> Entry | None:
        """See `vitascope_core.ports.KeyValue.get`."""
        return self._entries.get(key)

    async def create(self, key: str, value: bytes) -> int:
        """See `vitascope_core.ports.KeyValue.create`."""
        if key in self._entries:
            raise Conflict(f"{key} exists")
        return await self.put(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """See `vitascope_core.ports.KeyValue.update`."""
        entry = self._entries.get(key)
        if entry is None or entry.revision != revision:
            raise Conflict(f"{key} is not at revision {revision}")
        return await self.put(key, value)

    async def put(self, key: str, value: bytes) -> int:
        """See `vitascope_core.ports.KeyValue.put`."""
        self._revision += 1
        entry = Entry(key, value, self._revision)
        self._entries[key] = entry
        self._watchers.tell(entry)
        return self._revision

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.KeyValue.delete`."""
        if self._entries.pop(key, None) is not None:
            self._revision += 1
            self._watchers.tell(Entry(key, None, self._revision))

    async def entries(self, prefix: str) -> list[Entry]:
        """See `vitascope_core.ports.KeyValue.entries`."""
        return sorted((e for k, e in self._entries.items() if k.startswith(prefix)), key=lambda e: e.key)

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Entry | None]]:
        """See `vitascope_core.ports.KeyValue.watch`."""
        return self._watchers.watch(prefix, self.entries)
