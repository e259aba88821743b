"""One child process that holds the engine, from its start to its end, seen from the worker."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue

from vitascope_core.card import ModelCard
from vitascope_core.errors import EngineCrashed, Stopped
from vitascope_core.job import JobSpec
from vitascope_core.ports import Control
from vitascope_denoiser.channel import (
    Channel,
    ChannelClosed,
    Close,
    Done,
    Failed,
    HandedBack,
    LoadFailed,
    Message,
    More,
    OfJob,
    Progress,
    Ready,
    Run,
    Save,
    Stop,
)
from vitascope_denoiser.settings import EngineSettings

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How often a thread that waits looks around: for a stop, and for whom it waits."""

_CLOSE_S = 5.0
"""Time that a child has to end by itself."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The child is gone."""

    message: str
    wanted: bool

    @property
    def error(self) -> Stopped | EngineCrashed:
        """What the calls under way raise."""
        return Stopped("the engine was closed") if self.wanted else EngineCrashed(self.message)


@dataclass(eq=False, slots=True)
class PendingJob:
    """A call of `ChildEngine.chunks` under way.

    Attributes:
        inbox: What the child said and nobody read yet.
        ended: The child needs no further word of it.
        handed_back: It was stopped so that its last step is kept.
    """

    id: int
    inbox: SimpleQueue[tuple[Message | Lost, bytes]] = field(default_factory=SimpleQueue)
    ended: bool = False
    handed_back: bool = False


class EngineProcess:
    """One child process, from its start to its end."""

    def __init__(self, settings: EngineSettings) -> None:
        # Spawned: a forked child would inherit locks, threads and CUDA contexts in unusable states.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=True)
        self._process = context.Process(target=_run_host, args=(theirs, settings), name="vitascope-engine", daemon=True)
        self._channel = Channel(ours)
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._outcome: Ready | LoadFailed | None = None
        self._load_until = time.monotonic() + settings.load_timeout_s
        self._lock = threading.Lock()
        self._jobs: dict[int, PendingJob] = {}
        self._count = 0
        self._closing = False
        self._lost: Lost | None = None
        self._process.start()
        theirs.close()
        threading.Thread(target=self._listen, name="engine-listener", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    @property
    def lost(self) -> bool:
        """Whether the process has ended."""
        return self._lost is not None

    @property
    def card(self) -> ModelCard:
        """The card; only after `wait_loaded` returned True."""
        if not isinstance(self._outcome, Ready):
            raise EngineCrashed("the model is not loaded")
        return self._outcome.card

    def wait_loaded(self, timeout_s: float) -> bool:
        """Return whether the model is loaded, waiting for it at most ``timeout_s``. Raises what loading raised."""
        self._settled.wait(timeout_s)
        if isinstance(self._outcome, LoadFailed):
            raise self._outcome.fault.error
        if self._lost is not None:
            raise self._lost.error
        if self._outcome is None and time.monotonic() > self._load_until:
            self._process.kill()
            raise EngineCrashed("the model took too long to load; the engine was killed")
        return self._outcome is not None

    def submit(self, spec: JobSpec, checkpoint: bytes | None = None, kept: frozenset[int] = frozenset()) -> PendingJob:
        """Send a job. One that comes too late finds the loss in its inbox.

        Args:
            spec: The job.
            checkpoint: Where it goes on; None to begin at the beginning.
            kept: Outputs that need not be decoded if nothing is left to denoise.
        """
        with self._lock:
            self._count += 1
            job = PendingJob(self._count)
            self._jobs[job.id] = job
            if self._lost is not None:
                job.inbox.put((self._lost, b""))
        run = Run(job.id, spec.denoise, spec.cuts, spec.fps, checkpoint is not None, tuple(sorted(kept)))
        self._send(run, checkpoint or b"")
        return job

    def stop(self, job: PendingJob, *, keep: bool) -> None:
        """Stop a job in the child and wake whoever waits for it: the call ends now, not with the step.

        With ``keep`` the child sends a checkpoint of its last step, if there is one to send, and says `HandedBack`.
        """
        if not job.ended and not self.lost:
            job.handed_back = keep
            self._send(Stop(job.id, keep))
            job.inbox.put((Stop(job.id), b""))

    def save(self, job: PendingJob) -> None:
        """Let the child make a checkpoint now."""
        self._send(Save(job.id))

    def last_words(self, job: PendingJob, timeout_s: float) -> Iterator[tuple[Message, bytes]]:
        """Yield what still comes from a job that was stopped to be kept; nothing for any other.

        Ends with `HandedBack`, with the child, or after ``timeout_s``.
        """
        until = time.monotonic() + timeout_s
        while job.handed_back:
            try:
                message, data = job.inbox.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                log.warning("no last checkpoint in time", extra={"engine_pid": self.pid})
                return
            if isinstance(message, (HandedBack, Lost)):
                return
            yield message, data

    def grant(self, job: PendingJob) -> None:
        """Let the child send one more chunk."""
        self._send(More(job.id))

    def forget(self, job: PendingJob) -> None:
        """End a job on this side, and in the child if it still runs there."""
        with self._lock:
            self._jobs.pop(job.id, None)
        if not job.ended:
            job.ended = True
            self._send(Stop(job.id))

    def next_of(self, job: PendingJob, control: Control) -> tuple[Message | Lost, bytes]:
        """Wait for a job's next message.

        A job that waits for its turn lives as long as the others do: their messages, and their consumers' taking
        their time, are its signs of life too.
        """
        while True:
            try:
                return job.inbox.get(timeout=POLL_S)
            except Empty:
                with self._lock:
                    held_up = any(not other.inbox.empty() for other in self._jobs.values() if other is not job)
                if held_up or control.stopped:
                    control.tick()

    def close(self) -> None:
        """Ask the process to end, then make it."""
        self._closing = True
        self._send(Close())
        if self._ended.wait(_CLOSE_S):
            return
        self._process.terminate()
        if self._ended.wait(_CLOSE_S):
            return
        self._process.kill()
        self._ended.wait(_CLOSE_S)

    def _send(self, message: Message, data: bytes = b"") -> None:
        try:
            self._channel.send(message, data)
        except ChannelClosed:
            log.debug("message to an engine that has ended", extra={"kind": type(message).__name__})

    def _listen(self) -> None:
        """Hand out what the child says until it says no more."""
        try:
            while True:
                self._take(*self._channel.receive())
        except ChannelClosed:
            pass
        finally:
            self._end()

    def _take(self, message: Message, data: bytes) -> None:
        if isinstance(message, (Ready, LoadFailed)):
            self._outcome = message
            self._settled.set()
            if isinstance(message, Ready):
                log.info("engine ready", extra={"engine_pid": self.pid, "model": message.card.id})
        elif isinstance(message, OfJob):
            with self._lock:
                job = self._jobs.get(message.job)
                # Not those with mail: nobody reads it now, and it would pile up.
                waiting = [other for other in self._jobs.values() if other is not job and other.inbox.empty()]
            if job is not None:
                job.ended = job.ended or isinstance(message, (Done, Failed))
                job.inbox.put((message, data))
            for other in waiting:
                other.inbox.put((Progress(other.id), b""))

    def _end(self) -> None:
        # This thread alone waits for the process: two would take each other's exit code.
        self._process.join(_CLOSE_S)
        if self._process.is_alive():
            # It closed its pipe and lives: no work of its can arrive any more, but it holds the device.
            self._process.kill()
            self._process.join()
        self._channel.close()
        lost = Lost(f"the engine's process {self.pid} {_fate(self._process.exitcode)}", self._closing)
        if not lost.wanted and not isinstance(self._outcome, LoadFailed):
            log.error("engine died", extra={"engine_pid": self.pid, "exit_code": self._process.exitcode})
        with self._lock:
            self._lost = lost
            for job in self._jobs.values():
                job.inbox.put((lost, b""))
        self._settled.set()
        self._ended.set()


def _fate(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"


def _run_host(connection: Connection, settings: EngineSettings) -> None:
    """Run in the child."""
    # Ctrl-C reaches the whole foreground group; when the child ends is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever libraries print belongs into the log; stdout may be the parent's output.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)

    from vitascope_denoiser.host import Host  # noqa: PLC0415 - torch, in the child alone

    Host(Channel(connection), settings).run()
