"""The handler of existing media: a stored file in, stored chunks and stored sound out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from vitascope_core.errors import InputLost
from vitascope_core.geometry import LONGEST_SIDES, check_frame_size
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord, JobKind
from vitascope_core.keys import audio_key
from vitascope_core.ports import ObjectStore
from vitascope_frames.chunk_object import fetch_file, record_of
from vitascope_frames.codec import loads
from vitascope_frames.media_file import MediaLimits
from vitascope_frames.media_process import SILENCE_S, Opened, read_media
from vitascope_frames.media_request import MediaRequest
from vitascope_frames.pump import pump
from vitascope_uploader.room import room_errors


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How files are read.

    Attributes:
        limits: What a file may ask for.
        memory_bytes: What the process that reads one may allocate; 0 for as much as it likes.
        silence_s: Time without a sign of life after which that process is ended, seconds.
    """

    limits: MediaLimits = field(default_factory=MediaLimits)
    memory_bytes: int = 0
    silence_s: float = SILENCE_S


class IngestHandler:
    """Reads a stored file in a process of its own and stores each chunk while the next is read."""

    def __init__(self, frames: ObjectStore, options: IngestOptions) -> None:
        """Bind the reading to the frames store, where files come from and chunks go to."""
        self._frames = frames
        self._options = options

    async def chunks(self, work: Work) -> AsyncIterator[ChunkRecord]:
        """Store the file's sound and each of its chunks, and yield the chunks' records.

        What the file is gets into the source's record before the first chunk does.

        Raises:
            Stopped: The control said so.
            UnsupportedMedia, DamagedMedia, MediaTooLarge: The file cannot be used.
            InvalidRequest: A later stage has no memory for frames as large.
            InputLost: The file is gone.
            EngineCrashed: The process that read it was killed.
            StoreUnavailable, DiskFull: As they say.
        """
        with room_errors(), TemporaryDirectory(prefix="vitascope-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            request = await self._fetched(work, folder)
            messages = read_media(request, work.control, silence_s=self._options.silence_s)
            async with aclosing(pump(_records(work, messages))) as made:
                async for item in made:
                    if isinstance(item, Opened):
                        await self._opened(work, item, request.sound)
                        continue
                    record, data = item
                    await self._frames.put(record.key, data)
                    del item, data
                    yield record

    async def _fetched(self, work: Work, folder: Path) -> MediaRequest:
        ingest, plan = work.spec.ingest, work.spec.plan
        if ingest is None:
            raise InputLost("the job names no file to read")
        path = folder / "input"
        await fetch_file(self._frames, ingest.key, path, work.control.tick)
        return MediaRequest(
            path=path,
            sound=folder / "sound.mp4",
            interpolate=plan.interpolate.exp if plan.interpolate else 0,
            upscale=plan.upscale.scale if plan.upscale else 0,
            chunk_frames=ingest.chunk_frames,
            picture=work.spec.kind is JobKind.IMAGE,
            longest_side=LONGEST_SIDES.get(work.spec.output.format, 0),
            limits=self._options.limits,
            memory_bytes=self._options.memory_bytes,
        )

    async def _opened(self, work: Work, opened: Opened, sound: Path) -> None:
        media, ingest, upscale = opened.media, work.spec.ingest, work.spec.plan.upscale
        if ingest is not None and upscale is not None:
            check_frame_size(ingest.field, media.width, media.height, ingest.max_pixels, upscale.scale)
        if opened.sound:
            media = replace(media, audio=audio_key(work.spec.id, work.attempt, 0))
            await self._frames.put_file(media.audio, sound)
        if work.log is not None:
            # Should a newer attempt have taken over, the worker hears of it before it records the first chunk.
            await work.log.opened(media)


def _records(work: Work, messages: Iterator[Opened | bytes]) -> Iterator[Opened | tuple[ChunkRecord, bytes]]:
    begun = time.perf_counter()
    for message in messages:
        if isinstance(message, Opened):
            yield message
        else:
            # Read here only for what is recorded: what is stored is what came.
            chunk = loads(message)
            yield record_of(work, chunk, size=len(message), seconds=time.perf_counter() - begun), message
            del chunk
        del message
        begun = time.perf_counter()
