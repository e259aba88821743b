"""The channel between a worker and the child process that holds its model: the messages, and how they are sent.

A message is one JSON array of its name and its fields; the bytes of a chunk, a checkpoint or a picture follow its
message. Nothing is pickled, and nothing here needs torch.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import get_args

from vitascope_core import errors
from vitascope_core.card import ModelCard
from vitascope_core.errors import VitascopeError
from vitascope_core.job import DenoiseSpec
from vitascope_denoiser.plain import from_plain, to_plain


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way.

    Attributes:
        kind: Class in `vitascope_core.errors`, which fixes its code as well; any other means an unexpected error.
        message: Its text.
        field: The request field of an InvalidRequest.
    """

    kind: str
    message: str
    field: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Return the fault that stands for an error."""
        if isinstance(error, VitascopeError):
            return cls(type(error).__name__, str(error), getattr(error, "field", None))
        return cls("", f"{type(error).__name__}: {error}")

    @property
    def error(self) -> Exception:
        """The error that it stands for: of the same core class, else an `EngineFault`."""
        kind = _KINDS.get(self.kind)
        if kind is None:
            return EngineFault(self.message)
        # Past __init__, which makes the message from other arguments in some classes.
        error = kind.__new__(kind, self.message)
        if self.field is not None:
            error.field = self.field  # type: ignore[attr-defined]
        return error


class EngineFault(RuntimeError):
    """The engine raised something that it does not do on purpose: a bug, or a library's own error.

    No VitascopeError, so that a worker treats it as unexpected; the child has logged the traceback.
    """


_KINDS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, VitascopeError)
}


# From the parent.


@dataclass(frozen=True, slots=True)
class Run:
    """Make a job's chunks. The bytes of a checkpoint follow, if it is to go on from one.

    Attributes:
        resumes: Whether there is a checkpoint.
        kept: Outputs that are left out if the checkpoint leaves nothing to denoise.
    """

    job: int
    spec: DenoiseSpec
    cuts: tuple[int, ...]
    fps: Fraction
    resumes: bool = False
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class More:
    """A chunk was taken: one more may be sent."""

    job: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End a job; nothing more of it is wanted, or with ``keep`` its last step, and then a `HandedBack`."""

    job: int
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Save:
    """Make a checkpoint of a job's last step now; the job goes on."""

    job: int


@dataclass(frozen=True, slots=True)
class Close:
    """End the process."""


# From the child.


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    card: ModelCard


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model could not be loaded; the child ends."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Progress:
    """A sign of life of a job, with the step if there is one."""

    job: int
    step: int | None = None
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """A chunk, whose bytes follow (`vitascope_frames.codec`)."""

    job: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The job goes on from its checkpoint."""

    job: int
    step: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The job begins at the beginning although there is a checkpoint."""

    job: int
    why: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint, whose bytes follow (`vitascope_denoiser.snapshot`)."""

    job: int
    step: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture on the way, whose bytes follow: uint8 of this shape."""

    job: int
    index: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """An output is left out, as the `Run` said."""

    job: int
    output: int


@dataclass(frozen=True, slots=True)
class HandedBack:
    """All checkpoints of a job that was stopped were sent."""

    job: int


@dataclass(frozen=True, slots=True)
class Done:
    """All chunks of a job were sent."""

    job: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A job ended with an error."""

    job: int
    fault: Fault


FromParent = Run | More | Stop | Save | Close
OfJob = Progress | Data | Resumed | Refused | Saved | Preview | Skipped | HandedBack | Done | Failed
FromChild = Ready | LoadFailed | OfJob
Message = FromParent | FromChild


@dataclass(frozen=True, slots=True)
class Part:
    """The next bytes of a job's checkpoint, whose `Saved` has the rest; other messages may come between."""

    job: int


_TYPES: dict[str, type[Message | Part]] = {kind.__name__: kind for kind in (*get_args(Message), Part)}
_WITH_DATA = (Run, Data, Saved, Preview, Part)
_PART_BYTES = 2**20
"""A checkpoint may be hundreds of MB, and a step that waited for all of it to be told would be late."""


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a duplex pipe. Any thread may send; one thread receives."""

    def __init__(self, connection: Connection) -> None:
        """Take over a connection."""
        self._connection = connection
        self._sending = threading.Lock()
        self._parts: dict[int, list[bytes]] = {}

    def send(self, message: Message, data: bytes = b"") -> None:
        """Send a message, with the bytes that follow it if it is of a kind with such.

        Raises:
            ChannelClosed: The other side is gone.
        """
        rest = memoryview(data)
        while isinstance(message, Saved) and len(rest) > _PART_BYTES:
            self._send(Part(message.job), rest[:_PART_BYTES])
            rest = rest[_PART_BYTES:]
        self._send(message, rest)

    def _send(self, message: Message | Part, data: memoryview) -> None:
        text = json.dumps([type(message).__name__, to_plain(message)]).encode()
        try:
            with self._sending:
                self._connection.send_bytes(text)
                if isinstance(message, _WITH_DATA):
                    self._connection.send_bytes(data)
        except OSError as error:
            raise ChannelClosed from error

    def receive(self) -> tuple[Message, bytes]:
        """Wait for a message; the bytes are those that follow it, else empty.

        Raises:
            ChannelClosed: The other side is gone, perhaps in the middle of a message.
        """
        while True:
            message, data = self._receive()
            if isinstance(message, Part):
                self._parts.setdefault(message.job, []).append(data)
                continue
            if isinstance(message, Saved) and (parts := self._parts.pop(message.job, None)):
                data = b"".join((*parts, data))
            return message, data

    def _receive(self) -> tuple[Message | Part, bytes]:
        try:
            name, value = json.loads(self._connection.recv_bytes())
            message = from_plain(_TYPES[name], value)
            return message, self._connection.recv_bytes() if isinstance(message, _WITH_DATA) else b""
        except (EOFError, OSError) as error:
            raise ChannelClosed from error

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
