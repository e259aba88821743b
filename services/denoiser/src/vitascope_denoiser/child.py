"""The engine in a child process, seen from the worker: a Source whose death the worker survives.

Nothing here imports torch; the model, its memory and its crashes belong to the child.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from vitascope_core.card import ModelCard
from vitascope_core.errors import EngineCrashed, Retryable, Stopped
from vitascope_core.job import JobSpec
from vitascope_core.ports import Control
from vitascope_denoiser.channel import (
    Data,
    Done,
    Failed,
    Message,
    Preview,
    Progress,
    Refused,
    Resumed,
    Saved,
    Skipped,
    Stop,
)
from vitascope_denoiser.process import POLL_S, EngineProcess, Lost, PendingJob
from vitascope_denoiser.settings import EngineSettings
from vitascope_frames.checkpoints import Checkpoint, Checkpoints, Kept, NoCheckpoints
from vitascope_frames.chunk import Chunk
from vitascope_frames.codec import loads

_LAST_WORDS_S = 5.0
"""Longest wait for the checkpoint of a job that is handed back."""


class ChildEngine:
    """Denoises in a child process; a Source (`vitascope_frames.stages`) for any number of threads.

    The child denoises one job while it decodes the one before, each first come, first served.
    """

    def __init__(self, settings: EngineSettings) -> None:
        """Bind the engine to its settings; the child is started by `start`, or by the first job."""
        self._settings = settings
        self._lock = threading.Lock()
        self._child: EngineProcess | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the child, if one was started."""
        child = self._child
        return None if child is None else child.pid

    def start(self) -> ModelCard:
        """Start the child if none runs, wait until the model is loaded and return its card.

        Raises:
            InvalidModel, InvalidSettings, DeviceOutOfMemory: The model cannot be loaded.
            EngineCrashed: The child died while loading, or took longer than ``load_timeout_s``.
        """
        child = self._current()
        while not child.wait_loaded(POLL_S):
            pass
        return child.card

    def chunks(
        self,
        spec: JobSpec,
        control: Control,
        checkpoints: Checkpoints = NoCheckpoints(),  # noqa: B008 - it has no state
    ) -> Iterator[Chunk | Kept]:
        """Yield the chunks of every output, output by output, each as soon as it is decoded.

        At most two chunks wait in memory for whoever takes them. Closing the generator stops the job. A job that is
        handed back leaves a checkpoint of its last step first, which takes a few seconds at most.

        Args:
            spec: The job.
            control: Ticked with every step and chunk.
            checkpoints: Where it may go on, and where its checkpoints and previews go. If nothing is left to denoise,
                outputs of which every chunk is there are yielded as `Kept`.

        Raises:
            Stopped: The control said so, or the engine was closed.
            StoreUnavailable: From ``checkpoints.newest``.
            EngineCrashed: The child died; the next call starts another.
            DeviceOutOfMemory, Final: From the engine.
            EngineFault: The engine raised something unexpected.
        """
        control.tick()
        child = self._loaded(control)
        keeps = self._settings.checkpoint_interval > 0
        newest = checkpoints.newest() if keeps else None
        job = child.submit(spec, *((newest.data, checkpoints.kept) if newest else ()))
        control.on_stop(lambda: child.stop(job, keep=keeps and control.handing_back))
        control.on_draining(lambda: child.save(job))
        made = _made(child, job, control, checkpoints, newest)
        del newest  # it may be large, and is needed for a moment only
        try:
            yield from made
        except (Stopped, GeneratorExit):
            if keeps and control.handing_back:
                # Once more: the control may have raised before it called back.
                child.stop(job, keep=True)
            for message, data in child.last_words(job, _LAST_WORDS_S):
                if isinstance(message, Saved):
                    _pass_on(message, data, checkpoints)
            raise
        finally:
            child.forget(job)

    def close(self) -> None:
        """End the child: it is asked, then terminated, then killed. Calls under way raise Stopped."""
        with self._lock:
            self._closed = True
            child = self._child
        if child is not None:
            child.close()

    def _current(self) -> EngineProcess:
        """Return the child that runs, a new one if none does."""
        with self._lock:
            if self._closed:
                raise Stopped("the engine is closed")
            if self._child is None or self._child.lost:
                self._child = EngineProcess(self._settings)
            return self._child

    def _loaded(self, control: Control) -> EngineProcess:
        child = self._current()
        try:
            while not child.wait_loaded(POLL_S):
                control.tick()
        except (Stopped, Retryable):
            raise
        except Exception as error:
            # The model did load when the worker started: whatever changed since, it is not the job's fault.
            raise EngineCrashed(f"the engine could not be started again: {error}") from error
        return child


def _made(
    child: EngineProcess, job: PendingJob, control: Control, checkpoints: Checkpoints, newest: Checkpoint | None
) -> Iterator[Chunk | Kept]:
    """Yield what the child makes of a job, and pass on what it says of checkpoints. Raises what the job ends with."""
    while True:
        message, data = child.next_of(job, control)
        match message:
            case Progress():
                control.tick(message.step, message.steps)
            case Data():
                control.tick()
                chunk = loads(data)
                child.grant(job)
                yield chunk
                del chunk, data
            case Skipped():
                control.tick()
                yield Kept(message.output)
            case Done():
                return
            case Failed():
                raise message.fault.error
            case Lost():
                raise message.error
            case Stop():
                control.tick()
                raise Stopped("the job was stopped")
            case Resumed() if newest is not None:
                checkpoints.used(newest)
                newest = None
            case _:
                _pass_on(message, data, checkpoints)


def _pass_on(message: Message, data: bytes, checkpoints: Checkpoints) -> None:
    """Tell the worker's side what the child says of checkpoints and previews."""
    match message:
        case Refused():
            checkpoints.refused(message.why)
        case Saved():
            checkpoints.save(Checkpoint(message.step, message.seconds, data))
        case Preview():
            checkpoints.preview(message.index, np.frombuffer(data, np.uint8).reshape(message.shape))
