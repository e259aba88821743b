"""The child process's side: holds the engine, denoises one job while it decodes the one before."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import NoReturn

import torch

from vitascope_core.errors import Stopped, VitascopeError
from vitascope_core.once import Once
from vitascope_denoiser.card import card_of
from vitascope_denoiser.channel import (
    Channel,
    ChannelClosed,
    Close,
    Data,
    Done,
    Failed,
    Fault,
    HandedBack,
    LoadFailed,
    More,
    Progress,
    Ready,
    Run,
    Save,
    Skipped,
    Stop,
)
from vitascope_denoiser.cutting import Cuts
from vitascope_denoiser.decoding import Latents
from vitascope_denoiser.engine import DiffusersEngine
from vitascope_denoiser.families import why_not_exact, why_not_resumable
from vitascope_denoiser.fingerprint import fingerprint_of
from vitascope_denoiser.keeper import Keeper, Writer
from vitascope_denoiser.pipeline import load
from vitascope_denoiser.settings import EngineSettings
from vitascope_frames.codec import dumps

log = logging.getLogger(__name__)

CHUNKS_AHEAD = 2
"""Chunks of a job that may be on their way to a consumer that has not taken them; one more may be ready here."""

_LOAD_FAILED = 3
_DEVICE_FAILED = 4


class HostedJob:
    """A job in the child; the engine's Control."""

    def __init__(self, run: Run, channel: Channel, keeper: Keeper) -> None:
        """Take a job over from the parent's message."""
        self.id = run.job
        self.spec = run.spec
        self.cuts = Cuts(run.cuts, run.fps)
        self.kept = frozenset(run.kept)
        self.keeper = keeper
        self._channel = channel
        self._state = threading.Condition()
        self._stopped = False
        self._credit = CHUNKS_AHEAD
        self._stop = Once()
        self._drain = Once()
        self.handing_back = False

    @property
    def stopped(self) -> bool:
        """Whether the parent wants nothing more of it."""
        return self._stopped

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        """Tell the parent of a step, or that the job lives. Raises Stopped."""
        if self._stopped:
            raise Stopped("the job was stopped")
        self._channel.send(Progress(self.id, step, steps))

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the job is stopped."""
        self._stop.listen(callback)

    def on_draining(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the parent asks for a checkpoint because the worker shuts down."""
        self._drain.listen(callback)

    def drain(self) -> None:
        """Make a checkpoint of what was reached."""
        self._drain.happen()

    def stop(self, *, keep: bool) -> None:
        """Let the next tick, or the wait for credit, raise Stopped; without ``keep`` there are no more checkpoints."""
        if not keep:
            self.keeper.close()
        with self._state:
            self._stopped = True
            self.handing_back = keep
            self._state.notify_all()
        self._stop.happen()

    def add_credit(self) -> None:
        """Let one more chunk be sent."""
        with self._state:
            self._credit += 1
            self._state.notify_all()

    def wait_for_credit(self) -> None:
        """Wait until a chunk may be sent. Raises Stopped."""
        with self._state:
            self._state.wait_for(lambda: self._credit or self._stopped)
            if self._stopped:
                raise Stopped("the job was stopped")
            self._credit -= 1


class Host:
    """Loads the model and serves the parent's jobs, first come, first served."""

    def __init__(self, channel: Channel, settings: EngineSettings) -> None:
        """Bind the host to its parent."""
        self._channel = channel
        self._settings = settings
        self._jobs: dict[int, HostedJob] = {}
        self._to_denoise: SimpleQueue[HostedJob] = SimpleQueue()
        self._to_decode: SimpleQueue[tuple[HostedJob, Latents]] = SimpleQueue()
        self._writer = Writer()

    def run(self) -> NoReturn:
        """Listen to the parent until it closes or dies; the process ends at once then, whatever it computes."""
        threading.Thread(target=self._work, name="denoise", daemon=True).start()
        threading.Thread(target=self._write, name="checkpoints", daemon=True).start()
        while True:
            try:
                message, data = self._channel.receive()
            except ChannelClosed:
                message, data = Close(), b""
            match message:
                case Run():
                    self._accept(message, data)
                case More() if message.job in self._jobs:
                    self._jobs[message.job].add_credit()
                case Save() if message.job in self._jobs:
                    self._jobs[message.job].drain()
                case Stop():
                    self._stop(message)
                case Close():
                    _leave(0)
            del data

    def _accept(self, run: Run, data: bytes) -> None:
        checkpoint = data if run.resumes else None
        keeper = Keeper(run.job, checkpoint, self._settings.checkpoint_interval, self._channel, self._writer)
        job = HostedJob(run, self._channel, keeper)
        job.on_draining(lambda: self._writer.put(keeper.save))
        self._jobs[job.id] = job
        self._to_denoise.put(job)

    def _stop(self, message: Stop) -> None:
        # Taken before the stop, which lets the job end.
        job = self._jobs.get(message.job)
        if job is not None:
            job.stop(keep=message.keep)
        if message.keep:
            self._writer.put(partial(self._hand_back, message.job, job))

    def _hand_back(self, job_id: int, job: HostedJob | None) -> None:
        """Send a checkpoint of a stopped job's last step, without waiting for the step that runs."""
        try:
            if job is not None:
                job.keeper.save()
        finally:
            self._channel.send(HandedBack(job_id))

    def _write(self) -> None:
        try:
            with _own_stream(), torch.no_grad():
                self._writer.run()
        except ChannelClosed:
            _leave(0)

    def _work(self) -> None:
        """Load, then denoise job after job; a second thread decodes."""
        engine = self._load()
        threading.Thread(target=self._decode_all, args=(engine,), name="decode", daemon=True).start()
        while True:
            job = self._to_denoise.get()
            self._guard(job, partial(self._denoise, engine, job))

    def _load(self) -> DiffusersEngine:
        try:
            pipe = load(self._settings)
            card = card_of(pipe, self._settings)
            engine = DiffusersEngine(pipe, fingerprint_of(pipe, self._settings) if card.resumable else None)
            if obstacle := why_not_resumable(pipe, self._settings):
                log.warning("interrupted jobs begin anew", extra={"reason": obstacle})
            elif inexact := why_not_exact(pipe):
                log.warning("interrupted jobs go on, perhaps not bit for bit", extra={"reason": inexact})
            self._channel.send(Ready(card))
        except ChannelClosed:
            _leave(0)
        except Exception as error:  # the process's boundary: the parent raises it
            if not isinstance(error, VitascopeError):
                log.exception("model not loaded")
            self._tell(LoadFailed(Fault.of(error)))
            _leave(_LOAD_FAILED)
        return engine

    def _decode_all(self, engine: DiffusersEngine) -> None:
        with _own_stream():
            while True:
                job, latents = self._to_decode.get()
                self._guard(job, partial(self._decode, engine, job, latents))
                # Latents of a long video are large; the next job may be hours away.
                del job, latents

    def _denoise(self, engine: DiffusersEngine, job: HostedJob) -> None:
        [latents] = engine.denoise([job.spec], [job], [job.keeper])
        self._to_decode.put((job, latents))

    def _decode(self, engine: DiffusersEngine, job: HostedJob, latents: Latents) -> None:
        job.tick()
        skip = job.kept if job.keeper.nothing_computed else frozenset()
        for output in sorted(skip):
            self._channel.send(Skipped(job.id, output))
        for chunk in engine.decode(latents, job.cuts, skip):
            job.wait_for_credit()
            self._channel.send(Data(job.id), dumps(chunk))
        self._jobs.pop(job.id, None)
        self._channel.send(Done(job.id))

    def _guard(self, job: HostedJob, work: Callable[[], None]) -> None:
        """Do the work; an error ends the job and is told to the parent."""
        try:
            work()
        except ChannelClosed:
            _leave(0)
        except Exception as error:  # the process's boundary: the parent raises it
            self._jobs.pop(job.id, None)
            if not isinstance(error, VitascopeError):
                log.exception("job raised", extra={"job": job.id})
            self._tell(Failed(job.id, Fault.of(error)))
            if isinstance(error, torch.AcceleratorError):
                # After a fault on the device every further call fails; a new process gets a new context.
                _leave(_DEVICE_FAILED)

    def _tell(self, message: Failed | LoadFailed) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            _leave(0)


def _own_stream() -> AbstractContextManager[object]:
    """Give this thread a CUDA stream, so that fetching a decoded chunk does not wait for the steps of the next job."""
    if not torch.cuda.is_available():
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]


def _leave(code: int) -> NoReturn:
    # Not sys.exit: threads inside torch would be waited for, or torn down in the middle of a kernel.
    logging.shutdown()
    os._exit(code)
