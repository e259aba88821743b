"""The checkpoints of one attempt in the frames store, written beside the computing."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
from collections.abc import Coroutine
from typing import Any

from vitascope_core.errors import ObjectMissing, Outage
from vitascope_core.handling import SourceLog, Work
from vitascope_core.job import CheckpointRecord, JobKind
from vitascope_core.keys import checkpoint_key, preview_key
from vitascope_core.ports import ObjectStore
from vitascope_frames.checkpoints import Checkpoint
from vitascope_frames.chunk import Frames
from vitascope_frames.pictures import encode_picture, thumbnail

log = logging.getLogger(__name__)


class StoredCheckpoints:
    """A source's `vitascope_frames.checkpoints.Checkpoints`, called from its threads; the loop does the storing.

    An object is stored before the record points to it, and the older one deleted after it, so that the record never
    points to nothing, however the process ends.
    """

    def __init__(self, work: Work, store: ObjectStore, source_log: SourceLog) -> None:
        """Bind the view to its delivery; on the loop that the store belongs to."""
        self._work = work
        self._store = store
        self._log = source_log
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._pointed = work.resume.checkpoint if work.resume else None
        self._waiting: Checkpoint | None = None
        self._previews: dict[int, Frames] = {}
        self._storing: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def kept(self) -> frozenset[int]:
        """See `Checkpoints.kept`."""
        return frozenset(record.output for record in self._work.resume.kept) if self._work.resume else frozenset()

    def newest(self) -> Checkpoint | None:
        """See `Checkpoints.newest`. Not from the loop's own thread."""
        resume = self._work.resume
        if resume is None:
            return None
        try:
            data = self._wait(self._store.get(resume.checkpoint.key))
        except ObjectMissing:
            self.refused(f"the checkpoint of step {resume.checkpoint.step} is gone")
            return None
        if hashlib.sha256(data).hexdigest() != resume.checkpoint.digest:
            self.refused(f"the checkpoint of step {resume.checkpoint.step} is damaged")
            return None
        return Checkpoint(resume.checkpoint.step, resume.checkpoint.seconds, data)

    def used(self, checkpoint: Checkpoint) -> None:
        """See `Checkpoints.used`. Returns when it is recorded: what is made from now on belongs to these latents."""
        resume = self._work.resume
        if resume is None:
            return
        log.info("resuming", extra={**self._work.task.log_fields, "step": checkpoint.step})
        try:
            self._wait(self._log.resumed(resume.checkpoint))
        except Outage as error:
            log.warning("resume not recorded", extra={**self._work.task.log_fields, "error": str(error)})

    def refused(self, why: str) -> None:
        """See `Checkpoints.refused`."""
        log.warning("not resumed", extra={**self._work.task.log_fields, "reason": why})

    def save(self, checkpoint: Checkpoint) -> None:
        """See `Checkpoints.save`."""
        self._loop.call_soon_threadsafe(self._offer, checkpoint)

    def preview(self, index: int, frames: Frames) -> None:
        """See `Checkpoints.preview`."""
        self._loop.call_soon_threadsafe(self._offer_preview, index, frames)

    async def close(self, *, flush: bool) -> None:
        """End the storing: what is under way or waits is finished if ``flush``, else given up."""
        # What the source's thread said last may still be on its way into the loop.
        await asyncio.sleep(0)
        self._closed = True
        if self._storing is None:
            return
        if not flush:
            self._storing.cancel()
        await asyncio.wait((self._storing,))
        if not self._storing.cancelled():
            self._storing.result()  # an outage is logged; anything else is a bug, and not to be lost

    def _wait(self, call: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _offer(self, checkpoint: Checkpoint) -> None:
        self._waiting = checkpoint
        self._start()

    def _offer_preview(self, index: int, frames: Frames) -> None:
        self._previews[index] = frames
        self._start()

    def _start(self) -> None:
        if not self._closed and (self._storing is None or self._storing.done()):
            self._storing = self._loop.create_task(self._store_all(), context=self._context)

    async def _store_all(self) -> None:
        while self._waiting is not None or self._previews:
            try:
                if self._waiting is not None:
                    checkpoint, self._waiting = self._waiting, None
                    await self._store_checkpoint(checkpoint)
                else:
                    index = min(self._previews)
                    await self._store_preview(index, self._previews.pop(index))
            except Outage as error:
                log.warning("not stored", extra={**self._work.task.log_fields, "error": str(error)})

    async def _store_checkpoint(self, checkpoint: Checkpoint) -> None:
        work, before = self._work, self._pointed
        digest = await asyncio.to_thread(_sha256, checkpoint.data)
        key = checkpoint_key(work.spec.id, work.attempt, checkpoint.step)
        await self._store.put(key, checkpoint.data)
        record = CheckpointRecord(work.attempt, key, checkpoint.step, checkpoint.seconds, digest)
        if not await self._log.point(record):
            await self._store.delete(key)
            return
        self._pointed = record
        log.info(
            "checkpoint stored",
            extra={**work.task.log_fields, "step": checkpoint.step, "bytes": len(checkpoint.data)},
        )
        if before is not None and before.key != key:
            await self._store.delete(before.key)

    async def _store_preview(self, index: int, frames: Frames) -> None:
        spec = self._work.spec
        if spec.kind is JobKind.IMAGE:
            picture = await asyncio.to_thread(encode_picture, frames[0], spec.output.format, spec.output.compression)
        else:
            picture = await asyncio.to_thread(thumbnail, frames[0])
        await self._store.put(preview_key(spec.id, self._work.attempt, index), picture.data)
        await self._log.shown(index + 1)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
