"""The handler of a source: every chunk is stored as soon as it is made."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord
from vitascope_core.ports import ObjectStore
from vitascope_frames.chunk import Chunk
from vitascope_frames.chunk_object import record_of
from vitascope_frames.codec import dumps
from vitascope_frames.pump import pump
from vitascope_frames.stages import Source


class SourceHandler:
    """Drives a source in a thread of its own and stores each chunk while the next is made."""

    def __init__(self, source: Source, store: ObjectStore) -> None:
        """Bind the source to where its chunks go: the frames store."""
        self._source = source
        self._store = store

    async def chunks(self, work: Work) -> AsyncIterator[ChunkRecord]:
        """Store each chunk and yield its record.

        Closing the generator closes the source, once its running step has ended.

        Raises:
            Stopped: The control said so.
            StoreUnavailable: A chunk could not be stored.
            Retryable, Final: From the source.
        """
        async with aclosing(pump(self._made(work))) as made:
            async for record, data in made:
                await self._store.put(record.key, data)
                del data
                yield record

    def _made(self, work: Work) -> Iterator[tuple[ChunkRecord, bytes]]:
        begun = time.perf_counter()
        for chunk in self._source.chunks(work.spec, work.control):
            yield _packed(work, chunk, begun)
            del chunk  # or it would live while the next is made
            begun = time.perf_counter()


def _packed(work: Work, chunk: Chunk, begun: float) -> tuple[ChunkRecord, bytes]:
    data = dumps(chunk)
    return record_of(work, chunk, size=len(data), seconds=time.perf_counter() - begun), data
