"""Key-value buckets in one SQLite file: the records of a single process that outlive it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Self, TypeVar

from vitascope_core.errors import BrokerUnavailable, Conflict
from vitascope_core.ports import Entry
from vitascope_platform.watchers import Watchers

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    bucket TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revisions (last INTEGER NOT NULL);
INSERT INTO revisions SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM revisions);
"""

_LAST_CHARACTER = "\U0010ffff"


class SqliteFile:
    """An open database file with its buckets. One process at a time: watchers hear only this process's writes."""

    def __init__(self, path: Path) -> None:
        # One thread owns the connection, so that a slow disk never blocks the event loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._db = self._thread.submit(_open, path).result()
        self._buckets: dict[str, SqliteKeyValue] = {}

    def bucket(self, name: str) -> SqliteKeyValue:
        """Return the bucket of this name; every call returns the same one, so that its watchers hear every writer."""
        return self._buckets.setdefault(name, SqliteKeyValue(self, name))

    async def run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``call`` as one transaction in the database's thread.

        Raises:
            Conflict: From ``call``; nothing was written.
            BrokerUnavailable: The database cannot be read or written, for example because the disk is full.
        """
        try:
            return await asyncio.wrap_future(self._thread.submit(self._transaction, call))
        except sqlite3.Error as error:
            raise BrokerUnavailable(f"the job database failed: {error}") from error

    def _transaction(self, call: Callable[[sqlite3.Connection], T]) -> T:
        with self._db:
            return call(self._db)

    def close(self) -> None:
        """Finish what is under way and close the file."""
        self._thread.submit(self._db.close).result()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level="IMMEDIATE", check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    # An accepted job survives a power cut: each commit waits for the disk.
    db.execute("PRAGMA synchronous=FULL")
    db.executescript(_SCHEMA)
    return db


class SqliteKeyValue:
    """`vitascope_core.ports.KeyValue` over a table. Made by `SqliteFile.bucket`."""

    def __init__(self, file: SqliteFile, name: str) -> None:
        self._file = file
        self._name = name
        self._watchers = Watchers()

    async def get(self, key: str) -> Entry | None:
        """See `vitascope_core.ports.KeyValue.get`."""
        return await self._file.run(lambda db: self._read(db, key))

    async def create(self, key: str, value: bytes) -> int:
        """See `vitascope_core.ports.KeyValue.create`."""

        def check(entry: Entry | None) -> None:
            if entry is not None:
                raise Conflict(f"{key} exists")

        return await self._write(key, value, check)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """See `vitascope_core.ports.KeyValue.update`."""

        def check(entry: Entry | None) -> None:
            if entry is None or entry.revision != revision:
                raise Conflict(f"{key} is not at revision {revision}")

        return await self._write(key, value, check)

    async def put(self, key: str, value: bytes) -> int:
        """See `vitascope_core.ports.KeyValue.put`."""
        return await self._write(key, value, None)

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.KeyValue.delete`."""

        def run(db: sqlite3.Connection) -> int | None:
            done = db.execute("DELETE FROM entries WHERE bucket = ? AND key = ?", (self._name, key))
            return _next_revision(db) if done.rowcount else None

        revision = await self._file.run(run)
        if revision is not None:
            self._watchers.tell(Entry(key, None, revision))

    async def entries(self, prefix: str) -> list[Entry]:
        """See `vitascope_core.ports.KeyValue.entries`."""

        def run(db: sqlite3.Connection) -> list[Entry]:
            rows = db.execute(
                "SELECT key, value, revision FROM entries WHERE bucket = ? AND key >= ? AND key < ? ORDER BY key",
                (self._name, prefix, prefix + _LAST_CHARACTER),
            )
            return [Entry(*row) for row in rows]

        return await self._file.run(run)

    def watch(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[Entry | None]]:
        """See `vitascope_core.ports.KeyValue.watch`."""
        return self._watchers.watch(prefix, self.entries)

    async def _write(self, key: str, value: bytes, check: Callable[[Entry | None], None] | None) -> int:
        def run(db: sqlite3.Connection) -> int:
            if check is not None:
                check(self._read(db, key))
            revision = _next_revision(db)
            db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", (self._name, key, value, revision))
            return revision

        revision = await self._file.run(run)
        self._watchers.tell(Entry(key, value, revision))
        return revision

    def _read(self, db: sqlite3.Connection, key: str) -> Entry | None:
        query = "SELECT key, value, revision FROM entries WHERE bucket = ? AND key = ?"
        row = db.execute(query, (self._name, key)).fetchone()
        return Entry(*row) if row else None


def _next_revision(db: sqlite3.Connection) -> int:
    # One sequence for all buckets and never reused, so that a revision never names two values.
    row = db.execute("UPDATE revisions SET last = last + 1 RETURNING last").fetchone()
    return int(row[0])
