"""A folder of pictures as one lossless video, so that it goes the way of every other file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vitascope_core.errors import DamagedMedia, MediaTooLarge, UnsupportedMedia
from vitascope_frames.chunk import Frames
from vitascope_frames.colour import BLACK, flatten
from vitascope_frames.h264 import ffmpeg_errors
from vitascope_frames.media_file import MediaLimits
from vitascope_frames.picture_file import ENDINGS, picture_size, read_picture

_NUMBER = re.compile(r"(\d+)")
_THREADS = 2


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder in the order that people give them: frame 9 comes before frame 10.

    Raises:
        UnsupportedMedia: There are none, or the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != "."]
    except OSError as error:
        raise UnsupportedMedia(f"the folder {folder} cannot be read: {error.strerror}") from error
    if not found:
        raise UnsupportedMedia(f"the folder {folder} holds no pictures ({', '.join(ENDINGS)})")
    return sorted(found, key=_natural)


def pack_pictures(
    pictures: Sequence[Path],
    fps: Fraction,
    target: Path,
    packed: Callable[[], object] = lambda: None,
    *,
    limits: MediaLimits | None = None,
) -> None:
    """Write pictures into a lossless video, one at a time; what is transparent becomes black.

    Args:
        pictures: In the order in which they are shown.
        fps: Pictures a second.
        target: Where the video is made.
        packed: Called for each picture; what it raises ends the packing.
        limits: What a picture may ask for; None for the usual.

    Raises:
        UnsupportedMedia: They differ in size, or one is of a kind that is not read; the odd one is named.
        DamagedMedia, MediaTooLarge: One cannot be read; it is named.
        DiskFull, EncodingFailed: The video cannot be written.
    """
    _check_sizes(pictures)
    # AVI, because it takes any frame rate exactly; FFV1, because it loses nothing and is quick.
    with ffmpeg_errors(), av.open(target, "w", format="avi") as container:
        stream = container.add_stream("ffv1", rate=fps.limit_denominator(1001))
        stream.pix_fmt = "bgr0"
        stream.codec_context.thread_count = _THREADS
        for number, frame in enumerate(_frames(pictures, limits or MediaLimits())):
            if number == 0:
                stream.height, stream.width, _ = frame.shape
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0", threads=1)
            picture.pts, picture.time_base = number, 1 / fps.limit_denominator(1001)
            for packet in stream.encode(picture):
                container.mux_one(packet)
            packed()
        for packet in stream.encode(None):
            container.mux_one(packet)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(1, int(part), part) if part.isdigit() else (0, 0, part.lower()) for part in _NUMBER.split(path.name)]


def _check_sizes(pictures: Sequence[Path]) -> None:
    """Look at the headers alone: to find the odd one at the end would be late."""
    first: tuple[int, int] | None = None
    for path in pictures:
        with _named(path):
            size = picture_size(path)
        first = first or size
        if size != first:
            raise UnsupportedMedia(
                f"{path.name} is {size[0]}x{size[1]}, {pictures[0].name} is {first[0]}x{first[1]}: "
                "the pictures of a video have one size"
            )


def _frames(pictures: Sequence[Path], limits: MediaLimits) -> Iterator[Frames]:
    for path in pictures:
        with _named(path):
            frame = read_picture(path, limits)
        yield np.ascontiguousarray(flatten(frame, BLACK))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the picture that cannot be read."""
    try:
        yield
    except (UnsupportedMedia, DamagedMedia, MediaTooLarge) as error:
        raise type(error)(f"{path.name} cannot be read: {error}") from error
