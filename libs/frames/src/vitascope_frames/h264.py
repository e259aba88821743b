"""One run of x264 into a container.

Segments made on different machines are joined, and promises compare files byte by byte, so everything that changes
x264's output is fixed here: threads, instruction set, group of pictures, colour.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.codec.context import ThreadType
from av.container import OutputContainer
from av.packet import Packet
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from vitascope_core.errors import DiskFull, InputLost, Retryable
from vitascope_frames.chunk import Frames
from vitascope_frames.colour import BLACK, ColourConverter, flatten, pad_even

THREADS = 4
"""Frame threads of every encoder: another number gives other bytes, and x264's own choice follows the machine."""

KEYFRAME_S = 4
"""Seconds from one key frame to the next at most, so that players can seek."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a disk without room, or of a user who may take no more of it."""

_MIN_TIMESCALE = 10_000
_WORST_CRF = 51
_BEST_CRF = 1  # CRF 0 is lossless, in a profile that Safari, Firefox and hardware decoders do not play


class EncodingFailed(Retryable):
    """FFmpeg could not write the video."""


@dataclass(frozen=True, slots=True)
class VideoQuality:
    """How good a video looks and how hard the encoder tries.

    Attributes:
        crf: x264's constant rate factor, 1 (best) to 51; fractions are fine.
        preset: x264's preset, "ultrafast" to "veryslow".
    """

    crf: float
    preset: str = "fast"

    @classmethod
    def of(cls, compression: int) -> VideoQuality:
        """Return the quality that a compression number, 0 to 100 (best), stands for."""
        return cls(max(_BEST_CRF, int((1 - compression / 100) * _WORST_CRF)))


def ticks(fps: Fraction) -> tuple[int, int]:
    """Return (ticks a second, ticks a frame) such that both are whole: 24000/1001 gives (24000, 1001)."""
    factor = 1
    while fps.numerator * factor < _MIN_TIMESCALE:
        factor *= 2
    return fps.numerator * factor, fps.denominator * factor


@contextmanager
def ffmpeg_errors() -> Iterator[None]:
    """Turn FFmpeg's own errors while writing into `EncodingFailed`, or `DiskFull` where that is why."""
    try:
        yield
    except av.error.FFmpegError as error:
        if error.errno in FULL:
            raise DiskFull(f"FFmpeg could not write the video: {error.strerror}") from error
        raise EncodingFailed(f"FFmpeg could not write the video: {error.strerror}") from error


class H264Writer:
    """Encodes RGB frames, one at a time, into a stream of a container.

    FFmpeg's errors leave it as they are: whoever opened the container holds `ffmpeg_errors` around both.
    """

    def __init__(self, container: OutputContainer, fps: Fraction, quality: VideoQuality, start: int = 0) -> None:
        """Add the stream; its size is that of the first frame.

        Args:
            container: Opened for writing, without streams.
            fps: Exact frames a second.
            quality: What to aim at.
            start: Number of the first frame: its time is ``start / fps``.
        """
        self._container = container
        self._fps = fps
        self._number = start
        self._frames = 0
        self._colour = ColourConverter()
        self._note: BitStreamFilterContext | None = None
        self._size = (0, 0)
        self._stream = self._add_stream(quality)

    @property
    def width(self) -> int:
        """Pixels of the video, padded to even; 0 before the first frame."""
        return self._stream.codec_context.width if self._frames else 0

    @property
    def height(self) -> int:
        """Pixels of the video, padded to even; 0 before the first frame."""
        return self._stream.codec_context.height if self._frames else 0

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._frames

    def write(self, frame: Frames) -> None:
        """Encode one frame, uint8 (H, W, 3 or 4); what is transparent becomes black.

        Raises:
            InputLost: The frame has another size than the first.
        """
        height, width, _ = frame.shape
        if self._frames == 0:
            self._begin(width, height)
        elif (width, height) != self._size:
            first = "x".join(map(str, self._size))
            raise InputLost(f"frame {self._number} is {width}x{height}, the first of its video is {first}")
        picture = self._colour.to_yuv(pad_even(flatten(frame, BLACK)))
        picture.pts, picture.time_base = self._number, 1 / self._fps
        self._mux(self._stream.encode(picture))
        self._number += 1
        self._frames += 1

    def finish(self) -> None:
        """Write what the encoder still holds back."""
        if self._frames:
            self._mux(self._stream.encode(None))

    def _add_stream(self, quality: VideoQuality) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=self._fps)
        stream.options = {"crf": f"{quality.crf:.2f}", "preset": quality.preset, "x264-params": _x264_params()}
        context = stream.codec_context
        context.pix_fmt = "yuv420p"
        context.time_base = 1 / self._fps
        # A group of one picture would switch to an intra profile.
        context.gop_size = max(2, round(KEYFRAME_S * self._fps))
        context.thread_type, context.thread_count = ThreadType.FRAME, THREADS
        context.color_range = ColorRange.MPEG
        context.colorspace = Colorspace.ITU709
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        return stream

    def _begin(self, width: int, height: int) -> None:
        self._size = (width, height)
        context = self._stream.codec_context
        context.width, context.height = width + width % 2, height + height % 2
        self._container.start_encoding()
        # x264 puts its settings into a note of 660 bytes at the head of every segment; type 6 is that note.
        self._note = BitStreamFilterContext("filter_units=remove_types=6", self._stream)

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        if self._note is None:
            return
        for packet in packets:
            clock = packet.time_base
            for bare in self._note.filter(packet):
                bare.stream, bare.time_base = self._stream, clock
                self._container.mux_one(bare)


@functools.cache
def _x264_params() -> str:
    # stitchable keeps the CRF out of the parameter sets, so that segments of different CRFs join.
    params = "stitchable=1"
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and "avx512" in cpu.read_text():
        # x264's AVX-512 macroblock tree gives other bytes from call to call. Forced only where it is known to exist:
        # x264 obeys even on a CPU without AVX2.
        params += ":asm=avx2"
    return params
