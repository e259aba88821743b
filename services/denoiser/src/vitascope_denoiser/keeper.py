"""Checkpoints of a job on their way to the worker: made now and then, in a thread beside the steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import SimpleQueue

from vitascope_denoiser.channel import Channel, ChannelClosed, Preview, Refused, Resumed, Saved
from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.snapshot import Snapshot, dumps
from vitascope_frames.chunk import Frames

log = logging.getLogger(__name__)


class Writer:
    """Does what would keep the steps waiting; `run` is the body of a thread."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def put(self, work: Callable[[], None]) -> None:
        """Let something be done, behind what was put before."""
        self._work.put(work)

    def run(self) -> None:
        """Do what is put, for ever. Raises ChannelClosed when the parent is gone."""
        while True:
            work = self._work.get()
            try:
                work()
            except ChannelClosed:
                raise
            except Exception:  # the thread's boundary: a job goes on without its checkpoint
                log.exception("no checkpoint")
            # A snapshot holds device memory, and the next may be long in coming.
            del work


class Keeper:
    """The attempt (`vitascope_denoiser.engine.Attempt`) of a job in the child.

    The engine hands it every state by reference. Of these the newest is written when the interval has passed, behind
    the last step, and when it is asked for.

    Attributes:
        nothing_computed: Whether the checkpoint left nothing to denoise; known once the job is denoised.
    """

    def __init__(self, job: int, checkpoint: bytes | None, interval_s: float, channel: Channel, writer: Writer) -> None:
        """Bind it to a job.

        Args:
            job: The job's id.
            checkpoint: Where the job goes on; None to begin at the beginning.
            interval_s: Seconds of denoising between two checkpoints.
            channel: Where they go.
            writer: Who makes them.
        """
        self._job = job
        self._checkpoint = checkpoint
        self._interval_s = interval_s
        self._channel = channel
        self._writer = writer
        # Newest first: the device may still be computing the newest, and may be at it for long.
        self._states: tuple[Snapshot, ...] = ()
        self._saved_step = 0
        self._due_s = interval_s
        self._busy = False
        self._closed = False
        self._resumed_step = 0
        self.nothing_computed = False

    @property
    def checkpoint(self) -> bytes | None:
        """See `Attempt.checkpoint`."""
        return self._checkpoint

    def resumed(self, step: int, seconds: float) -> None:
        """See `Attempt.resumed`."""
        self._checkpoint = None
        self._resumed_step = self._saved_step = step
        self._due_s = seconds + self._interval_s
        self._channel.send(Resumed(self._job, step))

    def refused(self, why: str) -> None:
        """See `Attempt.refused`."""
        self._checkpoint = None
        self._channel.send(Refused(self._job, why))

    def reached(self, snapshot: Snapshot) -> None:
        """See `Attempt.reached`."""
        if self._closed:
            return
        self._states = (snapshot, *self._states[:1])
        if snapshot.seconds >= self._due_s and not self._busy:
            self._busy = True
            self._due_s = snapshot.seconds + self._interval_s
            self._writer.put(self.save)

    def denoised(self, step: int) -> None:
        """See `Attempt.denoised`."""
        self.nothing_computed = step == self._resumed_step
        self._states = self._states[:1]
        self._writer.put(self._save_last)

    def preview(self, index: int, frames: Frames) -> None:
        """See `Attempt.preview`."""
        self._channel.send(Preview(self._job, index, frames.shape), frames.tobytes())

    def save(self) -> None:
        """Write the newest state that the device has computed, unless it is written. For the writer's thread."""
        states = self._states
        # The older one is waited for where neither is ready: it comes first.
        snapshot = next((state for state in states if state.ready), states[-1] if states else None)
        try:
            if snapshot is not None and snapshot.step > self._saved_step and not self._closed:
                data = dumps(snapshot)
                self._channel.send(Saved(self._job, snapshot.step, snapshot.seconds), data)
                self._saved_step = snapshot.step
        except NotResumable as error:
            log.warning("job makes no checkpoints", extra={"reason": str(error)})
            self.close()
        finally:
            self._busy = False

    def _save_last(self) -> None:
        self.save()
        self.close()

    def close(self) -> None:
        """Write nothing any more."""
        self._closed = True
        self._states = ()
