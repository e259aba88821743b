"""The job records: who may write which key, and how a lost answer is resolved (DESIGN sections 7 and 8).

Written once, over any key-value bucket. A write whose outcome is unknown is repeated by the caller; the repetition then
meets its own first copy, recognises it and reports success.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from vitascope_core import keys
from vitascope_core.errors import Conflict
from vitascope_core.job import ChunkRecord, JobEnd, JobSpec, SourceRecord
from vitascope_core.plan import StageName
from vitascope_core.ports import Entry, KeyValue
from vitascope_platform.records import BadRecord, from_json, to_json

log = logging.getLogger(__name__)

JobRecord = JobSpec | SourceRecord | ChunkRecord | JobEnd


@dataclass(frozen=True, slots=True)
class Claim:
    """A source record with the revision that a compare-and-set needs."""

    record: SourceRecord
    revision: int


@dataclass(frozen=True, slots=True)
class JobChange:
    """One record of a job as it is now; ``record`` is None when the key ``part`` was deleted.

    Attributes:
        part: "spec", "source", "chunk" or "end".
    """

    job_id: str
    part: str
    record: JobRecord | None


class JobStore:
    """The records of all jobs. Every method raises BrokerUnavailable when the bucket is away."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    async def create_spec(self, spec: JobSpec) -> None:
        """Store the spec of a new job.

        Raises:
            Conflict: Another job has this id.
        """
        value = to_json(spec)
        try:
            await self._bucket.create(keys.spec_entry(spec.id), value)
        except Conflict:
            found = await self._bucket.get(keys.spec_entry(spec.id))
            if found is None or found.value != value:
                raise

    async def spec(self, job_id: str) -> JobSpec | None:
        """Return the job's spec, or None for an unknown or deleted job."""
        entry = await self._bucket.get(keys.spec_entry(job_id))
        return None if entry is None else from_json(JobSpec, entry.value or b"")

    async def source(self, job_id: str) -> Claim | None:
        """Return the source record with its revision, or None before the first claim."""
        entry = await self._bucket.get(keys.source_entry(job_id))
        return None if entry is None else Claim(from_json(SourceRecord, entry.value or b""), entry.revision)

    async def swap_source(self, job_id: str, record: SourceRecord, revision: int | None) -> int:
        """Replace the source record at ``revision`` (None: there is none yet) and return the new revision.

        Raises:
            Conflict: Someone else wrote in between.
        """
        key, value = keys.source_entry(job_id), to_json(record)
        try:
            if revision is None:
                return await self._bucket.create(key, value)
            return await self._bucket.update(key, value, revision)
        except Conflict:
            found = await self._bucket.get(key)
            if found is None or found.value != value:
                raise
            return found.revision

    async def put_chunk(self, job_id: str, record: ChunkRecord) -> None:
        """Record a stored chunk; a repetition replaces an equal record."""
        key = keys.chunk_entry(job_id, record.attempt, record.stage, record.output, record.index)
        await self._bucket.put(key, to_json(record))

    async def chunks(
        self, job_id: str, attempt: int | None = None, stage: StageName | None = None
    ) -> list[ChunkRecord]:
        """Return a job's chunk records, by output and index within each attempt and stage."""
        found = await self._bucket.entries(keys.chunks_prefix(job_id, attempt, stage))
        records = [from_json(ChunkRecord, entry.value or b"") for entry in found]
        return sorted(records, key=lambda r: (r.attempt, r.stage, r.output, r.index))

    async def create_end(self, job_id: str, end: JobEnd) -> JobEnd:
        """End the job unless it has ended, and return the end that stands: compare its token with one's own."""
        try:
            await self._bucket.create(keys.end_entry(job_id), to_json(end))
        except Conflict:
            standing = await self.end(job_id)
            # Purged in between: whoever deleted the job ended it first.
            return standing if standing is not None else JobEnd(end.state, "", end.at_ms)
        return end

    async def end(self, job_id: str) -> JobEnd | None:
        """Return how the job ended, or None while it has not."""
        entry = await self._bucket.get(keys.end_entry(job_id))
        return None if entry is None else from_json(JobEnd, entry.value or b"")

    async def purge_spec(self, job_id: str) -> None:
        """Forget the job's spec: to clients it is gone. Its end stays, so that no late worker can revive it."""
        await self._bucket.delete(keys.spec_entry(job_id))

    async def purge_progress(self, job_id: str) -> None:
        """Forget the source and chunk records of a job that has ended."""
        for record in await self._bucket.entries(keys.chunks_prefix(job_id)):
            await self._bucket.delete(record.key)
        await self._bucket.delete(keys.source_entry(job_id))

    async def purge_end(self, job_id: str) -> None:
        """Forget the job's end; only when no message of it can be left."""
        await self._bucket.delete(keys.end_entry(job_id))

    async def all(self) -> list[JobChange]:
        """Return every record of every job."""
        return [change for entry in await self._bucket.entries("") if (change := _change(entry)) is not None]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[JobChange | None]]:
        """Follow all jobs: every record there is, then None once, then each change."""

        async def changes(entries: AsyncIterator[Entry | None]) -> AsyncIterator[JobChange | None]:
            async for entry in entries:
                if entry is None:
                    yield None
                elif (change := _change(entry)) is not None:
                    yield change

        async with self._bucket.watch("") as entries:
            yield changes(entries)

    @asynccontextmanager
    async def watch_chunks(
        self, job_id: str, attempt: int, stage: StageName
    ) -> AsyncIterator[AsyncIterator[ChunkRecord]]:
        """Follow the chunk records of one stage of one attempt, those there are and those to come, as they come."""

        async def records(entries: AsyncIterator[Entry | None]) -> AsyncIterator[ChunkRecord]:
            async for entry in entries:
                if entry is not None and entry.value is not None:
                    yield from_json(ChunkRecord, entry.value)

        async with self._bucket.watch(keys.chunks_prefix(job_id, attempt, stage)) as entries:
            yield records(entries)

    @asynccontextmanager
    async def watch_end(self, job_id: str) -> AsyncIterator[AsyncIterator[JobEnd]]:
        """Follow a job's end: yields it as soon as there is one."""

        async def ends(entries: AsyncIterator[Entry | None]) -> AsyncIterator[JobEnd]:
            async for entry in entries:
                if entry is not None and entry.key == keys.end_entry(job_id) and entry.value is not None:
                    yield from_json(JobEnd, entry.value)

        async with self._bucket.watch(keys.end_entry(job_id)) as entries:
            yield ends(entries)


_KINDS: dict[str, type[JobSpec] | type[SourceRecord] | type[ChunkRecord] | type[JobEnd]] = {
    "spec": JobSpec,
    "source": SourceRecord,
    "chunk": ChunkRecord,
    "end": JobEnd,
}


def _change(entry: Entry) -> JobChange | None:
    """Return what an entry says, or None with a log line: one that cannot be read must not hide all the others."""
    job_id, _, rest = entry.key.partition(".")
    part = rest.partition(".")[0]
    try:
        record = None if entry.value is None else from_json(_KINDS[part], entry.value)
    except (BadRecord, KeyError) as error:
        log.error("record skipped", extra={"key": entry.key, "error": str(error)})
        return None
    return JobChange(job_id, part, record)
