"""The handler of a source: every chunk is stored as soon as it is made."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace

from vitascope_core.errors import InputLost, Retryable
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord
from vitascope_core.keys import chunk_key
from vitascope_core.ports import ObjectStore
from vitascope_frames.checkpoints import Checkpoints, Kept, NoCheckpoints
from vitascope_frames.chunk import Chunk
from vitascope_frames.chunk_object import fetch, record_of
from vitascope_frames.codec import dumps
from vitascope_frames.pump import pump
from vitascope_frames.stages import Source
from vitascope_frames.stored_checkpoints import StoredCheckpoints


class SourceHandler:
    """Drives a source in a thread of its own and stores each chunk while the next is made."""

    def __init__(self, source: Source, store: ObjectStore) -> None:
        """Bind the source to where its chunks go: the frames store."""
        self._source = source
        self._store = store

    async def chunks(self, work: Work) -> AsyncIterator[ChunkRecord]:
        """Store each chunk and yield its record.

        Closing the generator closes the source, once its running step has ended. A checkpoint that the source wrote
        last is stored before Stopped is raised by work that is handed back.

        Raises:
            Stopped: The control said so.
            StoreUnavailable: A chunk could not be stored.
            Retryable, Final: From the source.
        """
        stored = None if work.log is None else StoredCheckpoints(work, self._store, work.log)
        try:
            async with aclosing(pump(self._made(work, stored or NoCheckpoints()))) as made:
                async for item in made:
                    if isinstance(item, Kept):
                        async for record in self._kept(work, item.output):
                            yield record
                        continue
                    record, data = item
                    await self._store.put(record.key, data)
                    del item, data
                    yield record
        finally:
            if stored is not None:
                await stored.close(flush=work.control.handing_back)

    def _made(self, work: Work, checkpoints: Checkpoints) -> Iterator[tuple[ChunkRecord, bytes] | Kept]:
        begun = time.perf_counter()
        for chunk in self._source.chunks(work.spec, work.control, checkpoints):
            yield chunk if isinstance(chunk, Kept) else _packed(work, chunk, begun)
            del chunk  # or it would live while the next is made
            begun = time.perf_counter()

    async def _kept(self, work: Work, output: int) -> AsyncIterator[ChunkRecord]:
        """Copy an output's chunks from the attempt before: those of two attempts never mix under one name."""
        for record in work.resume.kept if work.resume else ():
            if record.output != output:
                continue
            try:
                data = await fetch(self._store, record.key)
            except InputLost as error:
                # Not the job's end: the next attempt has nothing to keep, and decodes again.
                raise Retryable(f"a chunk that was to be kept is gone: {record.key}") from error
            key = chunk_key(work.spec.id, work.attempt, record.stage, record.output, record.index)
            await self._store.put(key, data)
            del data
            yield replace(record, attempt=work.attempt, key=key)


def _packed(work: Work, chunk: Chunk, begun: float) -> tuple[ChunkRecord, bytes]:
    data = dumps(chunk)
    return record_of(work, chunk, size=len(data), seconds=time.perf_counter() - begun), data
