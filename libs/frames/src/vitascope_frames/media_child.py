"""``python -m vitascope_frames.media_child REQUEST``: reads one file and sends its chunks to standard output.

Decoders are large, old and written in C, and the file may be made for them to stumble over. Here they have a process of
their own, without the service's credentials and connections, with a bound on memory. It may hang or die: whoever
started it tells (`vitascope_frames.media_process`).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from fractions import Fraction
from typing import Final as Constant

import numpy as np
from PIL import Image

from vitascope_core.errors import DamagedMedia, DiskFull, MediaTooLarge, UnsupportedMedia, VitascopeError
from vitascope_core.geometry import MOST_PICTURE_PIXELS, chunk_length, shortest_segment
from vitascope_frames.chunk import Chunk, Frames
from vitascope_frames.codec import dumps
from vitascope_frames.h264 import FULL, EncodingFailed
from vitascope_frames.media_file import MediaFile, open_media
from vitascope_frames.media_request import Kind, MediaRequest, head
from vitascope_frames.picture_file import read_picture
from vitascope_frames.sound import take_sound

_OUT: Constant = 1
_ALIVE_S = 1.0


def main() -> None:
    """Answer the request and exit; an error is part of the answer."""
    request = MediaRequest.from_json(sys.argv[1])
    # Ctrl-C reaches every process of a terminal; this one ends with whoever started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _confine(request.memory_bytes)
    try:
        (_answer_picture if request.picture else _answer)(request)
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except Exception as error:  # noqa: BLE001 - the boundary of a process that may meet anything
        _say(Kind.ERROR, json.dumps(_told(error)).encode())


def _confine(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _answer(request: MediaRequest) -> None:
    with open_media(request.path, request.limits) as media:
        _check_sides(request, "video", media.width, media.height)
        alive = _Alive()
        sound = take_sound(request.path, request.sound, media.first, request.limits, alive.told)
        _say_opened(media.width, media.height, media.fps, media.frames, sound=sound)
        for chunk in _chunks(media, request, alive):
            _say(Kind.CHUNK, dumps(chunk))
            del chunk
        _say(Kind.END)


def _answer_picture(request: MediaRequest) -> None:
    Image.MAX_IMAGE_PIXELS = None  # the request says how many there may be
    frame = read_picture(request.path, request.limits)
    height, width, _ = frame.shape
    _check_sides(request, "picture", width, height)
    made = request.plan.enlarged(width) * request.plan.enlarged(height)
    if made > MOST_PICTURE_PIXELS:
        raise MediaTooLarge(f"the finished picture would have {made} pixels, more than {MOST_PICTURE_PIXELS}")
    _say_opened(width, height, Fraction(0), 1, sound=False)
    _say(Kind.CHUNK, dumps(Chunk(frame[None], output=0, index=0, start=0, last=True, fps=Fraction(0))))
    _say(Kind.END)


def _check_sides(request: MediaRequest, what: str, width: int, height: int) -> None:
    longest, most = request.plan.enlarged(max(width, height)), request.longest_side
    if most and longest > most:
        raise MediaTooLarge(f"the finished {what} would have {longest} pixels on a side, more than {most}")


def _say_opened(width: int, height: int, fps: Fraction, frames: int, *, sound: bool) -> None:
    found = {"width": width, "height": height, "fps": str(fps), "frames": frames, "sound": sound}
    _say(Kind.OPENED, json.dumps(found).encode())


class _Alive:
    """Says that the work goes on, but not all the time."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def told(self) -> None:
        if time.monotonic() - self._said > _ALIVE_S:
            self._said = time.monotonic()
            _say(Kind.ALIVE)


def _chunks(media: MediaFile, request: MediaRequest, alive: _Alive) -> Iterator[Chunk]:
    """Yield the file's frames in chunks, in arrays that are used again.

    One is sent when there are enough frames behind it for another, or none any more: where chunks become segments, what
    is too short for one joins the one before it.
    """
    size, behind = request.chunk_frames or chunk_length(media.width, media.height, media.fps, request.plan), 1
    if request.plan.upscale is not None and not request.chunk_frames:
        behind = shortest_segment(size, media.fps, request.plan)
    kept = behind - 1
    frames: Frames | None = None
    lead: Frames | None = None
    filled = index = start = 0
    for frame in media.pictures():
        alive.told()
        if frames is None:
            frames = np.empty((size + kept, *frame.shape), np.uint8)
        elif filled == size + kept:
            yield Chunk(frames[:size], output=0, index=index, start=start, last=False, fps=media.fps, lead=lead)
            lead = frames[size - 1].copy()
            frames[:kept] = frames[size:]
            start, index, filled = start + size, index + 1, kept
        frames[filled] = frame
        filled += 1
    if frames is None:
        raise DamagedMedia("the file holds no picture")
    yield Chunk(frames[:filled], output=0, index=index, start=start, last=True, fps=media.fps, lead=lead)


def _told(error: Exception) -> dict[str, str]:
    """Return code, message and, for what nobody foresaw, where it came from."""
    if isinstance(error, VitascopeError) and not isinstance(error, EncodingFailed):
        return {"code": error.code, "message": str(error)}
    if isinstance(error, OSError) and error.errno in FULL:
        return {"code": DiskFull.code, "message": f"no room for what is read from a file: {error.strerror}"}
    if isinstance(error, MemoryError):
        return {"code": MediaTooLarge.code, "message": "reading the file takes more memory than is allowed"}
    # What is strange enough to surprise the reader is for its sender to mend; the trace is for ours to read.
    text = f"the file cannot be read: {error}"
    kind = UnsupportedMedia if isinstance(error, EncodingFailed) else DamagedMedia
    return {"code": kind.code, "message": text, "trace": traceback.format_exc()}


def _say(kind: Kind, body: bytes = b"") -> None:
    for data in (head(kind, len(body)), body):
        left = memoryview(data)
        while left:
            left = left[os.write(_OUT, left) :]


if __name__ == "__main__":
    main()
