"""Reading a file in a process of its own: what may crash, hang or swallow memory does it there."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

from vitascope_core.errors import (
    DamagedMedia,
    DiskFull,
    EngineCrashed,
    MediaTooLarge,
    UnsupportedMedia,
    VitascopeError,
)
from vitascope_core.job import Media
from vitascope_core.ports import Control
from vitascope_frames.media_request import HEAD_BYTES, Kind, MediaRequest

log = logging.getLogger(__name__)

SILENCE_S = 60.0
"""Time without a word after which a decoder is taken for hung. One that works speaks every second, or at every frame
that takes longer."""

_LOOK_S = 0.2
"""How often the reader looks whether the work is still wanted."""
_PIPE_BYTES = 1 << 20
_MAX_BODY = 1 << 34
_KINDS = frozenset(Kind)
_ERRORS: dict[str, type[VitascopeError]] = {
    kind.code: kind for kind in (UnsupportedMedia, DamagedMedia, MediaTooLarge, DiskFull)
}
_KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
"""Variables that the process gets. Not ours: they hold credentials."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What the file is, said before its first chunk.

    Attributes:
        media: All but the key of its sound.
        sound: Whether sound was written.
    """

    media: Media
    sound: bool


def read_media(request: MediaRequest, control: Control, *, silence_s: float = SILENCE_S) -> Iterator[Opened | bytes]:
    """Yield what the file is, then its chunks as `vitascope_frames.codec` writes them.

    The process ends with this generator. It waits while nobody takes its chunks, so memory holds one or two.

    Args:
        request: What to read.
        control: Ticked at every message.
        silence_s: Time without a message after which the process is ended.

    Raises:
        UnsupportedMedia, DamagedMedia, MediaTooLarge: As they say. A decoder that crashes or hangs is one of the second
            kind: it would again.
        EngineCrashed: The process was killed from outside, or did not start.
        DiskFull: There is no room for the sound.
        Stopped: From ``control.tick``, also while the process works.
    """
    with _Reader(request, silence_s) as reader:
        while True:
            kind, body = reader.message(control)
            if kind is Kind.OPENED:
                yield _opened(json.loads(body))
            elif kind is Kind.CHUNK:
                yield body
            elif kind is Kind.ERROR:
                raise _error(json.loads(body))
            elif kind is Kind.END:
                return
            del body


class _Reader:
    """The process and the pipe from it."""

    def __init__(self, request: MediaRequest, silence_s: float) -> None:
        self._silence_s = silence_s
        self._errors = request.sound.with_suffix(".stderr")
        command = [sys.executable, "-m", "vitascope_frames.media_child", request.to_json()]
        # One thread for linear algebra that is never done: its default reserves memory for every CPU.
        env = {name: os.environ[name] for name in _KEPT if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"}
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, with a request that no shell reads
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env, bufsize=0
            )
        self._pipe = _pipe_of(self._process)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        _widen(self._pipe)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def message(self, control: Control) -> tuple[Kind, bytes]:
        head = self._bytes(HEAD_BYTES, control)
        length = int.from_bytes(head[1:], "big")
        if head[0] not in _KINDS or length > _MAX_BODY:
            raise DamagedMedia("the decoder of the file went wrong: it answers with nonsense")
        body = self._bytes(length, control)
        control.tick()
        return Kind(head[0]), body

    def _bytes(self, count: int, control: Control) -> bytes:
        buffer = bytearray(count)
        left, heard = memoryview(buffer), time.monotonic()
        while left:
            if self._selector.select(_LOOK_S):
                got = os.readv(self._pipe.fileno(), [left])
                if not got:
                    raise self._death()
                left, heard = left[got:], time.monotonic()
            elif control.stopped:
                control.tick()
            elif time.monotonic() - heard > self._silence_s:
                raise DamagedMedia(f"the decoder of the file hung: nothing came of it for {self._silence_s:g} seconds")
        return bytes(buffer)

    def _death(self) -> VitascopeError:
        code = self._process.wait()
        with suppress(OSError):
            said = self._errors.read_text(errors="replace")[-2000:].strip()
            log.warning("reading a file ended", extra={"exit_code": code, "said": said})
        if code < 0 and -code != signal.SIGKILL:
            return DamagedMedia(f"the file made its decoder crash ({signal.Signals(-code).name})")
        # SIGKILL is the system's word when memory is short: another worker may have more.
        return EngineCrashed(f"the process that read the file ended with {code}")


def _pipe_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise ValueError("the process has no pipe")
    return process.stdout


def _widen(pipe: IO[bytes]) -> None:
    """Let more through at once, where the system can."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _opened(found: dict[str, object]) -> Opened:
    width, height, frames = (int(str(found[name])) for name in ("width", "height", "frames"))
    return Opened(Media(width, height, Fraction(str(found["fps"])), frames), bool(found["sound"]))


def _error(told: dict[str, str]) -> VitascopeError:
    if "trace" in told:
        log.warning("reading a file raised", extra={"trace": told["trace"][-4000:]})
    return _ERRORS.get(told["code"], DamagedMedia)(told["message"])
