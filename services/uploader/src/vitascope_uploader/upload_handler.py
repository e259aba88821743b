"""The handler of the sink: stored chunks in, stored files out, the manifest last."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vitascope_core.errors import StoreUnavailable
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord, FileRecord, JobEnd, JobSpec
from vitascope_core.keys import result_prefix
from vitascope_core.ports import ObjectStore
from vitascope_frames.chunk import Chunk, Segment
from vitascope_frames.chunk_object import fetch, fetch_file
from vitascope_frames.codec import loads
from vitascope_frames.pump import drain
from vitascope_frames.segment_object import check
from vitascope_frames.stages import Artifact, Sink
from vitascope_uploader.manifest import NAME, manifest
from vitascope_uploader.room import room_errors


class FileUploadHandler:
    """Feeds a sink from the frames store and stores its files under the delivery's token."""

    def __init__(self, sink: Sink, frames: ObjectStore, results: ObjectStore, prefix: str = "") -> None:
        """Bind the sink to its stores.

        Args:
            sink: Writes the files.
            frames: Where chunks come from.
            results: Where files go.
            prefix: Of this installation in the results store, "" or ending with a slash.
        """
        self._sink = sink
        self._frames = frames
        self._results = results
        self._prefix = prefix

    async def upload(self, work: Work, parts: AsyncIterator[ChunkRecord]) -> list[FileRecord]:
        """Write the finished files under the delivery's token and return their records.

        The next part is fetched while the current one is written. What was stored is removed again if the whole does
        not succeed.

        Raises:
            Stopped: The control said so.
            InputLost: A part is gone, damaged or missing in the sequence.
            StoreUnavailable: A store is away.
            DiskFull: There is no room for the files here.
            Retryable, Final: From the sink.
        """
        # A thread that is still writing when a cancelled call leaves must not turn the removal into an error.
        with room_errors(), TemporaryDirectory(prefix="vitascope-", ignore_cleanup_errors=True) as folder:
            artifacts = await self._write(work, parts, Path(folder))
            try:
                return await self._store(work, artifacts)
            except BaseException:
                # Half a result is of no use to anybody, whatever ended it. With the store away the caller's
                # `discard` has to do it.
                with suppress(StoreUnavailable):
                    await self.discard(work.spec.id, work.token)
                raise

    async def finish(self, work: Work, end: JobEnd) -> None:
        """Store the manifest, the mark of a complete result. If that fails, the files are removed again.

        Raises:
            Stopped: The control said so.
            StoreUnavailable: The results store is away.
        """
        try:
            work.control.tick()
            await self._results.put(self._key(work.spec.id, work.token, NAME), manifest(work.spec, end))
        except BaseException:
            with suppress(StoreUnavailable):
                await self.discard(work.spec.id, work.token)
            raise

    async def discard(self, job_id: str, token: str) -> None:
        """Remove what a delivery wrote that lost the race for the job's end."""
        await self._results.delete_prefix(self._key(job_id, token, ""))

    async def _write(self, work: Work, records: AsyncIterator[ChunkRecord], folder: Path) -> list[Artifact]:
        sound: Path | None = None
        if work.media is not None and work.media.audio:
            sound = folder / "sound"
            await fetch_file(self._frames, work.media.audio, sound, work.control.tick)
        async with aclosing(self._parts(records, work.spec)) as parts:
            return await drain(parts, lambda fed: self._sink.write(work.spec, fed, folder, work.control, sound))

    async def _parts(self, records: AsyncIterator[ChunkRecord], spec: JobSpec) -> AsyncGenerator[Chunk | Segment, None]:
        async for record in records:
            yield _part(record, await fetch(self._frames, record.key), spec)

    async def _store(self, work: Work, artifacts: list[Artifact]) -> list[FileRecord]:
        files: list[FileRecord] = []
        for artifact in artifacts:
            work.control.tick()
            key = self._key(work.spec.id, work.token, artifact.name)
            await self._results.put_file(key, artifact.path)
            files.append(replace(artifact.record, key=key))
        return files

    def _key(self, job_id: str, token: str, name: str) -> str:
        return f"{result_prefix(self._prefix, job_id)}{token}/{name}"


def _part(record: ChunkRecord, data: bytes, spec: JobSpec) -> Chunk | Segment:
    if not record.segment:
        return loads(data)
    check(data)
    return Segment(
        data, record.output, record.index, record.start, record.frames, record.last, spec.out_fps or record.fps
    )
