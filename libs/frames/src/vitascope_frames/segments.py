"""Segments: chunks encoded where they are made, and joined without encoding again.

A segment is fragmented MP4 with one fragment: playable alone, an HLS segment as it is, and exact to join, because its
frames are counted, not timed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vitascope_core.errors import Final, InputLost
from vitascope_core.job import JobKind, JobSpec
from vitascope_core.plan import StageName
from vitascope_frames.chunk import Frames
from vitascope_frames.h264 import H264Writer, VideoQuality, ffmpeg_errors, ticks
from vitascope_frames.sound import Silence, SoundTrack, sound_beside
from vitascope_frames.video_file import VideoFile, create_mp4

# Presets whose macroblock tree looks further ahead than a short segment is long.
_LOOKING_AHEAD = frozenset({"faster", "fast", "medium", "slow"})


class SegmentsDiffer(Final):
    """The segments of one output were encoded with different sizes, rates or settings, and cannot share a file."""


def makes_segments(spec: JobSpec, stage: StageName) -> bool:
    """Whether a stage stores its chunks as segments: the last transform does, where raw frames would be gigabytes."""
    return spec.kind is JobKind.VIDEO and spec.plan.upscale is not None and stage is spec.plan.last


def encode_segment(frames: Iterable[Frames], count: int, start: int, fps: Fraction, quality: VideoQuality) -> bytes:
    """Encode consecutive frames as one segment.

    Args:
        frames: uint8 (H, W, 3 or 4), all of one size; taken one by one.
        count: How many frames there are, at least 1.
        start: Number of the first frame in its output.
        fps: Exact frames a second.
        quality: What a video in one piece would be encoded with.

    Returns:
        A fragmented MP4 whose header is the same for all segments of a job.

    Raises:
        InputLost: There are more or fewer than ``count`` frames, or sizes differ.
        EncodingFailed: FFmpeg could not write.
    """
    buffer = io.BytesIO()
    # cmaf: signed offsets and no edit list, so a frame's time is exactly its number's. frag_discont: times begin at
    # `start`. skip_trailer: no index behind the only fragment.
    options = {"movflags": "cmaf+frag_discont+skip_trailer", "video_track_timescale": str(ticks(fps)[0])}
    with ffmpeg_errors(), av.open(buffer, "w", format="mp4", options=options) as container:
        writer = H264Writer(container, fps, _for_length(quality, count), start)
        for frame in frames:
            writer.write(frame)
            del frame  # a view: it would keep its chunk alive
        writer.finish()
        written = writer.frames
    if not written or written != count:
        raise InputLost(f"a segment of {count} frames was given {written}")
    return buffer.getvalue()


def join_segments(segments: Iterable[bytes], fps: Fraction, path: Path, sound: Path | None = None) -> VideoFile:
    """Join the segments of one output, in order, into an MP4 whose index comes first.

    Frames are counted: the n-th frame of the file is shown at n / fps, whatever times the segments carry. Memory
    holds one segment.

    Args:
        segments: As `encode_segment` made them.
        fps: Exact frames a second.
        path: Where the file is made.
        sound: What `vitascope_frames.sound.take_sound` wrote, to be heard beside the frames.

    Raises:
        SegmentsDiffer: A segment's parameter sets are not the first one's.
        InputLost: There is no segment, or one is damaged, or the sound is.
        EncodingFailed: FFmpeg could not write.
    """
    with create_mp4(path, fps) as container, ExitStack() as stack:
        track: SoundTrack | Silence = Silence()
        joiner = _Joiner(container, fps)
        for data in segments:
            if not joiner.frames:
                joiner.begin(data)
                track = stack.enter_context(sound_beside(container, sound))
            joiner.add(data)
            del data  # or it would live while the next one is fetched
            track.until(joiner.frames / fps)
        track.finish()
        file = VideoFile(path, joiner.width, joiner.height, joiner.frames)
    if not file.frames:
        raise InputLost("there are no segments to make a video of")
    return file


class _Joiner:
    """Copies the packets of segments into one stream, renumbered."""

    def __init__(self, container: OutputContainer, fps: Fraction) -> None:
        self._container = container
        self._timescale, self._tick = ticks(fps)
        self._stream: VideoStream | None = None
        self._parameters = b""
        self._delay = 0
        self.frames = 0
        self.width = 0
        self.height = 0

    def begin(self, data: bytes) -> None:
        """Add the stream, as the first segment has it."""
        with _read_errors(), av.open(io.BytesIO(data), "r", format="mp4") as source:
            self._stream_for(source.streams.video[0])

    def add(self, data: bytes) -> None:
        with _read_errors(), av.open(io.BytesIO(data), "r", format="mp4") as source:
            template = source.streams.video[0]
            packets = [packet for packet in source.demux(template) if packet.size]
            stream = self._stream_for(template)
        for packet, lag in _with_lag(packets):
            self._number(packet, lag, stream)
            self._container.mux_one(packet)
            self.frames += 1

    def _stream_for(self, template: VideoStream) -> VideoStream:
        context = template.codec_context
        parameters = bytes(context.extradata or b"")
        if self._stream is None:
            self._stream = self._container.add_stream_from_template(template)
            self._stream.time_base = Fraction(1, self._timescale)
            self._parameters, self._delay = parameters, context.reorder_depth
            self.width, self.height = context.width, context.height
        elif parameters != self._parameters:
            raise SegmentsDiffer(
                f"the segment at frame {self.frames} ({context.width}x{context.height}) has other parameter sets than "
                f"the first ({self.width}x{self.height})"
            )
        return self._stream

    def _number(self, packet: Packet[VideoStream], lag: int, stream: VideoStream) -> None:
        # The segment's own times are of no use: those of one or two frames are not delayed, all others are.
        packet.stream, packet.time_base = stream, Fraction(1, self._timescale)
        packet.pts = (self.frames + lag) * self._tick
        packet.dts = (self.frames - self._delay) * self._tick
        packet.duration = self._tick


def _with_lag(packets: list[Packet[VideoStream]]) -> Iterator[tuple[Packet[VideoStream], int]]:
    """Yield each packet with its place in display order less its place in decoding order."""
    shown = sorted(range(len(packets)), key=lambda place: packets[place].pts or 0)
    ranks = {place: rank for rank, place in enumerate(shown)}
    for place, packet in enumerate(packets):
        yield packet, ranks[place] - place


@contextmanager
def _read_errors() -> Iterator[None]:
    """Turn FFmpeg's own errors while reading a segment into `InputLost`."""
    try:
        yield
    except (av.error.FFmpegError, IndexError) as error:
        raise InputLost(f"a stored segment is damaged: {error!r}") from error


def _for_length(quality: VideoQuality, frames: int) -> VideoQuality:
    """Return the quality at which a short segment looks like its part of a video in one piece.

    x264's macroblock tree spends bits on what later frames refer to, and stops at the segment's end: 13 frames lose
    0.8 dB and a single one 3 dB at the same CRF. The correction was fitted on segments of 1 to 61 frames, CRF 5 to 33.
    It is a share of the CRF, because at CRF 5 next to nothing is lost, whatever the length.
    """
    if quality.preset not in _LOOKING_AHEAD:
        return quality
    return VideoQuality(max(1.0, quality.crf * (1 - 0.8 / (frames + 2))), quality.preset)
