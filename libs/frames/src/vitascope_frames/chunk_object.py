"""Chunks as objects: how they are fetched, and what is recorded of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from vitascope_core.errors import InputLost, ObjectMissing
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord
from vitascope_core.keys import chunk_key
from vitascope_core.ports import ObjectStore
from vitascope_frames.chunk import Chunk


async def fetch(store: ObjectStore, key: str) -> bytes:
    """Return an object that the job cannot go on without.

    Raises:
        InputLost: It is gone.
        StoreUnavailable: The store is away.
    """
    try:
        return await store.get(key)
    except ObjectMissing as error:
        raise InputLost(f"the stored object {key} is gone") from error


async def fetch_file(store: ObjectStore, key: str, path: Path, tick: Callable[[], None]) -> None:
    """Write an object that the job cannot go on without into a file, piece by piece.

    Args:
        store: Where it is.
        key: Its name.
        path: The file.
        tick: Called for every piece; what it raises ends the fetching.

    Raises:
        InputLost: It is gone.
        StoreUnavailable: The store is away, or went away in between.
    """
    try:
        with path.open("wb") as file:
            async for piece in store.read(key):
                await asyncio.to_thread(file.write, piece)
                tick()
    except ObjectMissing as error:
        raise InputLost(f"the stored object {key} is gone") from error


def record_of(work: Work, chunk: Chunk, *, size: int, seconds: float, segment: bool = False) -> ChunkRecord:
    """Return the record of a chunk that a delivery made.

    Args:
        work: The delivery.
        chunk: The chunk as it came out of the stage.
        size: Bytes of the object.
        seconds: Time that computing and encoding it took, without transfers.
        segment: Whether the object is a segment.
    """
    stage = work.task.stage
    return ChunkRecord(
        attempt=work.attempt,
        stage=stage,
        output=chunk.output,
        index=chunk.index,
        key=chunk_key(work.spec.id, work.attempt, stage, chunk.output, chunk.index),
        start=chunk.start,
        frames=len(chunk.frames),
        last=chunk.last,
        segment=segment,
        size=size,
        seconds=seconds,
        fps=chunk.fps,
    )
