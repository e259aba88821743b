"""The engine in a child process, seen from the worker: a Source whose death the worker survives.

Nothing here imports torch; the model, its memory and its crashes belong to the child.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from vitascope_core.card import ModelCard
from vitascope_core.errors import EngineCrashed, Retryable, Stopped
from vitascope_core.job import JobSpec
from vitascope_core.ports import Control
from vitascope_denoiser.channel import Data, Done, Failed, Progress
from vitascope_denoiser.process import POLL_S, EngineProcess, Lost
from vitascope_denoiser.settings import EngineSettings
from vitascope_frames.chunk import Chunk
from vitascope_frames.codec import loads


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

    def chunks(self, spec: JobSpec, control: Control) -> Iterator[Chunk]:
        """Yield the chunks of every output, output by output, each as soon as it is decoded.

        At most two chunks wait in memory for whoever takes them. Closing the generator stops the job.

        Raises:
            Stopped: The control said so, or the engine was closed.
            EngineCrashed: The child died; the next call starts another.
            DeviceOutOfMemory, Final: From the engine.
            EngineFault: The engine raised something unexpected.
        """
        control.tick()
        child = self._loaded(control)
        job = child.submit(spec)
        control.on_stop(lambda: child.stop(job))
        try:
            while True:
                message, data = child.next_of(job, control)
                if isinstance(message, Progress):
                    control.tick(message.step, message.steps)
                elif isinstance(message, Data):
                    control.tick()
                    chunk = loads(data)
                    child.grant(job)
                    yield chunk
                    del chunk, data
                elif isinstance(message, Done):
                    return
                elif isinstance(message, Failed):
                    raise message.fault.error
                elif isinstance(message, Lost):
                    raise message.error
                else:
                    control.tick()
                    raise Stopped("the job was stopped")
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
