"""Objects in memory: for tests, and for what need not outlive the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from vitascope_core.errors import ObjectMissing
from vitascope_core.ports import Buffer, ObjectInfo

_PIECE = 256 * 1024


class MemoryStore:
    """`vitascope_core.ports.ObjectStore` over a dict."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    async def put(self, key: str, data: Buffer) -> None:
        """See `vitascope_core.ports.ObjectStore.put`."""
        self._objects[key] = bytes(data)

    async def put_file(self, key: str, path: Path) -> None:
        """See `vitascope_core.ports.ObjectStore.put_file`."""
        self._objects[key] = path.read_bytes()  # noqa: ASYNC240 - a test's file, on a disk that does not block

    async def get(self, key: str) -> bytes:
        """See `vitascope_core.ports.ObjectStore.get`."""
        if key not in self._objects:
            raise ObjectMissing(key)
        return self._objects[key]

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `vitascope_core.ports.ObjectStore.stat`."""
        return ObjectInfo(key, len(self._objects[key])) if key in self._objects else None

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `vitascope_core.ports.ObjectStore.read`."""
        data = await self.get(key)
        end = len(data) if length is None else min(len(data), start + length)
        for at in range(start, end, _PIECE):
            yield data[at : min(end, at + _PIECE)]

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """See `vitascope_core.ports.ObjectStore.list`."""
        return [ObjectInfo(key, len(data)) for key, data in sorted(self._objects.items()) if key.startswith(prefix)]

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.ObjectStore.delete`."""
        self._objects.pop(key, None)

    async def delete_prefix(self, prefix: str) -> int:
        """See `vitascope_core.ports.ObjectStore.delete_prefix`."""
        found = [key for key in self._objects if key.startswith(prefix)]
        for key in found:
            del self._objects[key]
        return len(found)
