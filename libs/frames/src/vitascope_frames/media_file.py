"""Reading a file with moving pictures that somebody else made, at a constant rate, upright and in square pixels.

What is read may be made to do harm, so a service reads it in a process of its own (`vitascope_frames.media_process`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorTrc
from av.video.stream import VideoStream

from vitascope_core.errors import DamagedMedia, MediaTooLarge, UnsupportedMedia
from vitascope_frames.chunk import Frames
from vitascope_frames.colour import ColourConverter
from vitascope_frames.media_filter import PictureFilter
from vitascope_frames.media_whole import breaks_off

MAX_FPS = 240
"""Above that a stream's rate is a clock's, not a camera's."""

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi,apng"
"""Demuxers that are let in. Never one that opens other files: an ffconcat script may be called clip.mp4."""

_USUAL_FPS = Fraction(25)
"""Of files that do not say how many pictures a second they have: each is still shown at its time."""

_THREADS = 2
_IO_BYTES = 1 << 20
_SQUARE = Fraction(1, 100)
"""Pixels that are by less than this not square are taken for square."""
_HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What a file may ask for.

    Attributes:
        max_pixels: Of a picture.
        max_duration_s: Of the whole, seconds.
        max_streams: Pictures, sound, subtitles and whatever else there is.
    """

    max_pixels: int = 8192 * 4320
    max_duration_s: float = 4 * 3600.0
    max_streams: int = 32


class MediaFile:
    """An open file. Made by `open_media`.

    Attributes:
        width: Pixels of the frames: upright, and square.
        height: Pixels of the frames.
        fps: Frames a second; constant, whatever the file's times are.
        frames: How many there are, as far as the file's headers say; 0 if they do not.
        first: Time of the first picture on the file's clock, seconds: what sound is counted from.
    """

    def __init__(self, container: InputContainer, limits: MediaLimits) -> None:
        self._limits = limits
        self._stream = _video_stream(container, limits)
        self._pictures = self._decoded(container)
        self._colour = ColourConverter()
        head = self._head = next(self._pictures, None)
        if head is None:
            raise DamagedMedia("the file holds no picture")
        self.fps = _rate(self._stream)
        self.first = _time(head, Fraction(0))
        self._matrix = _display_matrix(head)
        self._stored = (head.width, head.height)
        self._square = _square_size(head, self._stream)
        turned = self._matrix is not None and self._matrix[0] == 0
        self.width, self.height = self._square[::-1] if turned else self._square
        self._check_size(self.width, self.height)
        duration = _duration(container, self._stream)
        self._check_duration(duration)
        self.frames = max(1, round(duration * self.fps)) if duration else 0

    def pictures(self) -> Iterator[Frames]:
        """Yield the frames, RGB uint8 (height, width, 3): every 1/fps seconds the newest that is not later.

        To be called once. At a constant rate these are the file's own pictures, each one once.

        Raises:
            DamagedMedia: The file breaks off or contradicts itself.
            MediaTooLarge: It is longer than allowed.
        """
        held: Frames | None = None
        slot, at = 0, self.first
        for picture in self._all_pictures():
            at = _time(picture, at + 1 / self.fps)
            due = int((at - self.first) * self.fps + Fraction(1, 2))
            self._check_duration(due / self.fps)
            while held is not None and slot < due:
                yield held
                slot += 1
            if due >= slot:
                held = self._upright(picture)
        if held is not None:
            yield held

    def _all_pictures(self) -> Iterator[av.VideoFrame]:
        head, self._head = self._head, None
        if head is None:
            raise ValueError("the pictures of a file are read once")
        treatments = _treatments(head)
        if not treatments:
            yield head
            del head
            yield from self._pictures
            return
        treated = PictureFilter(head, treatments)
        yield from treated.push(head)
        del head
        for picture in self._pictures:
            yield from treated.push(picture)
        yield from treated.finish()

    def _decoded(self, container: InputContainer) -> Iterator[av.VideoFrame]:
        number = 0
        try:
            for picture in container.decode(self._stream):
                if number and (picture.width, picture.height) != self._stored:
                    first = "x".join(map(str, self._stored))
                    raise DamagedMedia(f"picture {number} is {picture.width}x{picture.height}, the first is {first}")
                yield picture
                number += 1
        except av.error.FFmpegError as error:
            raise DamagedMedia(f"after {number} pictures the file cannot be decoded: {error.strerror}") from error

    def _upright(self, picture: av.VideoFrame) -> Frames:
        return _oriented(self._colour.from_media(picture, *self._square), self._matrix)

    def _check_size(self, width: int, height: int) -> None:
        _check_pixels(width, height, self._limits)

    def _check_duration(self, seconds: Fraction) -> None:
        if seconds > self._limits.max_duration_s:
            raise MediaTooLarge(f"the file is longer than {self._limits.max_duration_s:g} seconds")


@contextmanager
def open_media(path: Path, limits: MediaLimits) -> Iterator[MediaFile]:
    """Open a file and look at its first picture.

    Raises:
        UnsupportedMedia: It is none of the formats that are read here, or has no pictures.
        DamagedMedia: It breaks off, or its first picture cannot be decoded.
        MediaTooLarge: It is beyond the limits.
    """
    with open_container(path) as container:
        yield MediaFile(container, limits)


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a file with the demuxers that are let in, and with nothing but this file in reach.

    Raises:
        UnsupportedMedia: It is none of the formats that are read here.
        DamagedMedia: It breaks off.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise UnsupportedMedia("the file is empty")
        file.seek(0)
        # A file object and no protocol: what the file refers to cannot be opened.
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
        try:
            container = av.open(file, "r", options=options, metadata_errors="replace", buffer_size=_IO_BYTES)
        except av.error.FFmpegError as error:
            _refuse_broken(file, "")
            formats = "MP4, MOV, Matroska, WebM, AVI, GIF, APNG"
            raise UnsupportedMedia(f"the file is no video that is read here ({formats}): {error.strerror}") from error
        with container:
            here = file.tell()
            _refuse_broken(file, container.format.name)
            file.seek(here)
            yield container


def _refuse_broken(file: BinaryIO, format_name: str) -> None:
    where = breaks_off(file, format_name)
    if where is not None:
        raise DamagedMedia(f"the file breaks off: it says that it has {where[1]} bytes, and has {where[0]}")


def _video_stream(container: InputContainer, limits: MediaLimits) -> VideoStream:
    if len(container.streams) > limits.max_streams:
        raise MediaTooLarge(f"the file has {len(container.streams)} streams, more than {limits.max_streams}")
    best = container.streams.best("video")
    streams = [best, *container.streams.video] if best is not None else list(container.streams.video)
    for stream in streams:
        # The cover of an album is a stream of one picture.
        if isinstance(stream, VideoStream) and not stream.disposition & Disposition.attached_pic:
            break
    else:
        raise UnsupportedMedia("the file has no moving pictures")
    context = stream.codec_context
    if context is None:
        raise UnsupportedMedia("the pictures are in a format that is not read here")
    _check_pixels(context.width, context.height, limits)
    # The header may say little and the pictures themselves more: FFmpeg then refuses them.
    context.options = {"max_pixels": str(limits.max_pixels)}
    context.thread_type, context.thread_count = ThreadType.AUTO, _THREADS
    return stream


def _check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    if width * height > limits.max_pixels:
        raise MediaTooLarge(f"the pictures are {width}x{height}, more than {limits.max_pixels} pixels")


def _rate(stream: VideoStream) -> Fraction:
    for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate):
        if rate and 0 < rate <= MAX_FPS:
            return Fraction(rate).limit_denominator(1001)
    return _USUAL_FPS


def _duration(container: InputContainer, stream: VideoStream) -> Fraction:
    if stream.duration and stream.time_base and stream.duration > 0:
        return stream.duration * stream.time_base
    return Fraction(max(0, container.duration or 0), av.time_base)


def _time(picture: av.VideoFrame, otherwise: Fraction) -> Fraction:
    return otherwise if picture.pts is None or picture.time_base is None else picture.pts * picture.time_base


def _square_size(picture: av.VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Return (width, height) of a picture once its pixels are square: the shorter way is stretched."""
    shape = stream.sample_aspect_ratio
    if not shape or shape <= 0 or abs(shape - 1) < _SQUARE:
        return picture.width, picture.height
    if shape > 1:
        return round(picture.width * shape), picture.height
    return picture.width, round(picture.height / shape)


def _treatments(picture: av.VideoFrame) -> tuple[tuple[str, str], ...]:
    """Return the filters that a video's pictures need before they are ordinary ones."""
    found = []
    if picture.interlaced_frame:
        found.append(("bwdif", "mode=send_frame"))
    if picture.color_trc in _HDR:
        found.append(("scale", "out_primaries=bt709:out_transfer=iec61966-2-1:intent=perceptual"))
        found.append(("format", "pix_fmts=gbrp"))
    return tuple(found)


def _display_matrix(picture: av.VideoFrame) -> npt.NDArray[np.int32] | None:
    """Return the signs of the 2x2 matrix by which players turn a video; None if they do not.

    Asked of one picture alone: whoever reads a picture's side data keeps the picture alive for a while.
    """
    pieces: Any = picture.side_data
    data = next((bytes(piece) for piece in pieces if piece.type.name == "DISPLAYMATRIX"), b"")
    matrix = np.frombuffer(data, np.int32)
    if matrix.size != 9 or not matrix[[0, 1, 3, 4]].any():
        return None
    # A turn by anything but quarters is left to nobody: the larger half of the matrix says which quarter is meant.
    straight = max(abs(int(matrix[0])), abs(int(matrix[4]))) >= max(abs(int(matrix[1])), abs(int(matrix[3])))
    signs = np.sign(matrix[[0, 1, 3, 4]])
    signs[[1, 2] if straight else [0, 3]] = 0
    return signs


def _oriented(rgb: Frames, signs: npt.NDArray[np.int32] | None) -> Frames:
    """Turn and flip a frame as players do. ``frame.rotation`` would get flips wrong."""
    if signs is None:
        return rgb
    a, b, c, d = (int(sign) for sign in signs)
    if a == 0:
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    if a < 0:
        rgb = rgb[:, ::-1]
    if d < 0:
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)
