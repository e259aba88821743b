"""Objects as files in a folder: the store of a single process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from vitascope_core.errors import ObjectMissing, StoreUnavailable
from vitascope_core.ports import Buffer, ObjectInfo

T = TypeVar("T")

_PIECE = 256 * 1024


class LocalStore:
    """`vitascope_core.ports.ObjectStore` in a folder.

    Args:
        root: The folder; made if it is not there.
        durable: Whether a put waits until the disk has it; results need that, intermediate frames do not.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self._objects = root / "objects"
        self._partial = root / "partial"
        self._durable = durable
        # What a killed process left half written is nobody's.
        shutil.rmtree(self._partial, ignore_errors=True)
        for folder in (self._objects, self._partial):
            folder.mkdir(parents=True, exist_ok=True)

    async def put(self, key: str, data: Buffer) -> None:
        """See `vitascope_core.ports.ObjectStore.put`."""

        def write(target: Path) -> None:
            handle, partial = tempfile.mkstemp(dir=self._partial)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    self._sync(file.fileno())
                self._publish(Path(partial), target)
            finally:
                Path(partial).unlink(missing_ok=True)

        await self._run(key, write)

    async def put_file(self, key: str, path: Path) -> None:
        """See `vitascope_core.ports.ObjectStore.put_file`. The file is moved away."""

        def move(target: Path) -> None:
            partial = self._partial / secrets.token_hex(8)
            try:
                # A link where both are on one file system: the original stays until the object is visible.
                partial.hardlink_to(path)
            except OSError:
                shutil.copyfile(path, partial)
            try:
                with partial.open("rb") as file:
                    self._sync(file.fileno())
                self._publish(partial, target)
            finally:
                partial.unlink(missing_ok=True)
            path.unlink(missing_ok=True)

        await self._run(key, move)

    async def get(self, key: str) -> bytes:
        """See `vitascope_core.ports.ObjectStore.get`."""
        return await self._run(key, Path.read_bytes)

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `vitascope_core.ports.ObjectStore.stat`."""
        try:
            return ObjectInfo(key, await self._run(key, lambda path: path.stat().st_size))
        except ObjectMissing:
            return None

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `vitascope_core.ports.ObjectStore.read`."""
        file = await self._run(key, lambda path: path.open("rb"))
        try:
            await self._run(key, lambda _: file.seek(start))
            left = length
            while left is None or left > 0:
                size = _PIECE if left is None else min(_PIECE, left)
                piece = await self._run(key, lambda _, size=size: file.read(size))  # type: ignore[misc]
                if not piece:
                    return
                yield piece
                left = None if left is None else left - len(piece)
        finally:
            file.close()

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """See `vitascope_core.ports.ObjectStore.list`."""
        return await self._run("", lambda root: _scan(root, prefix))

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.ObjectStore.delete`."""

        def remove(path: Path) -> None:
            path.unlink(missing_ok=True)
            self._prune(path.parent)

        await self._run(key, remove)

    async def delete_prefix(self, prefix: str) -> int:
        """See `vitascope_core.ports.ObjectStore.delete_prefix`."""
        found = await self.list(prefix)
        for info in found:
            await self.delete(info.key)
        return len(found)

    async def _run(self, key: str, call: Callable[[Path], T]) -> T:
        path = self._path(key) if key else self._objects
        try:
            return await asyncio.to_thread(call, path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(key) from error
        except OSError as error:
            raise StoreUnavailable(f"{key}: {error.strerror or error}") from error

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise ObjectMissing(key)
        return self._objects.joinpath(*parts)

    def _publish(self, partial: Path, target: Path) -> None:
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.replace(target)
                break
            except FileNotFoundError:
                # A delete beside us pruned the folder between the two calls.
                if not partial.exists():
                    raise
        if self._durable:
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _sync(self, descriptor: int) -> None:
        if self._durable:
            os.fsync(descriptor)

    def _prune(self, folder: Path) -> None:
        while folder != self._objects:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _scan(root: Path, prefix: str) -> list[ObjectInfo]:
    found = []
    for parent, _, names in os.walk(root.joinpath(*prefix.split("/")[:-1])):
        for name in names:
            path = Path(parent, name)
            key = path.relative_to(root).as_posix()
            if key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # deleted while we look
                    found.append(ObjectInfo(key, path.stat().st_size))
    return sorted(found, key=lambda info: info.key)
