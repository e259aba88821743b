"""Sound: taken out of a file that somebody sent, and put into the finished one, untouched where the format allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from vitascope_core.errors import DamagedMedia, InputLost, MediaTooLarge, UnsupportedMedia
from vitascope_frames.h264 import ffmpeg_errors
from vitascope_frames.media_file import MediaLimits, open_container

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"})
"""What players find in an MP4. Everything else becomes AAC."""

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AAC_RATE = 48000
_BITS_PER_CHANNEL = 96_000
_GAP_S = Fraction(1, 10)
"""A hole in the sound that is longer is filled with silence, so that what follows keeps its time."""

AudioPacket: TypeAlias = "Packet[AudioStream]"


def take_sound(
    path: Path, target: Path, first: Fraction, limits: MediaLimits, alive: Callable[[], None] = lambda: None
) -> bool:
    """Write a file's sound into an MP4 without pictures, and return whether it has any.

    Of several streams FFmpeg's choice is taken. Packets are copied if the format is one of `COPIED`.

    Args:
        path: The file.
        target: Where the sound goes.
        first: Time of the file's first picture, seconds: that is where the sound's own clock has its zero.
        limits: Longer sound than ``max_duration_s`` is refused.
        alive: Called now and then.

    Raises:
        UnsupportedMedia: The sound is in a format that cannot be read here.
        DamagedMedia: The file breaks off.
        MediaTooLarge: It is longer than allowed.
        DiskFull, EncodingFailed: The target cannot be written.
    """
    with open_container(path) as source:
        stream = source.streams.best("audio")
        if not isinstance(stream, AudioStream):
            return False
        if stream.codec_context is None:
            raise UnsupportedMedia("the sound is in a format that is not read here")
        rate = stream.rate or _AAC_RATE
        options = {"movie_timescale": str(rate)}
        with ffmpeg_errors(), av.open(target, "w", format="mp4", options=options) as container:
            if stream.codec_context.name in COPIED:
                _copy(source, stream, container, first, limits, alive)
            else:
                _encode(source, stream, container, first, limits, alive)
    return True


class SoundTrack:
    """Sound beside the pictures of a file that is being written: made after the pictures' stream, before the first."""

    def __init__(self, container: OutputContainer, source: InputContainer) -> None:
        """Add the stream.

        Args:
            container: Has its stream of pictures, and no packet yet.
            source: What `take_sound` wrote.
        """
        template = source.streams.audio[0]
        self._container = container
        self._stream = container.add_stream_from_template(template)
        self._packets = _packets(source, template)
        self._next = next(self._packets, None)

    def until(self, seconds: Fraction) -> None:
        """Write what is heard up to a time, so that players find it beside the pictures of that time."""
        while self._next is not None and _starts(self._next) <= seconds:
            self._next.stream = self._stream
            self._container.mux_one(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write the rest."""
        while self._next is not None:
            self.until(_starts(self._next))


class Silence:
    """In place of a `SoundTrack` where there is none."""

    def until(self, seconds: Fraction) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


@contextmanager
def sound_beside(container: OutputContainer, path: Path | None) -> Iterator[SoundTrack | Silence]:
    """Open what `take_sound` wrote, and its track in a file whose stream of pictures is there.

    Raises:
        InputLost: It is damaged.
    """
    if path is None:
        yield Silence()
        return
    try:
        source = av.open(path, "r", format="mp4")
    except av.error.FFmpegError as error:
        raise InputLost(f"the stored sound is damaged: {error.strerror}") from error
    with source:
        if not source.streams.audio:
            raise InputLost("the stored sound is damaged: there is none in it")
        yield SoundTrack(container, source)


def _copy(
    source: InputContainer,
    stream: AudioStream,
    container: OutputContainer,
    first: Fraction,
    limits: MediaLimits,
    alive: Callable[[], None],
) -> None:
    copied = container.add_stream_from_template(stream)
    for packet in _read(source, stream):
        alive()
        clock = packet.time_base
        shift = round(first / clock)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        _check_length(_starts(packet), limits)
        packet.stream = copied
        container.mux_one(packet)


def _encode(
    source: InputContainer,
    stream: AudioStream,
    container: OutputContainer,
    first: Fraction,
    limits: MediaLimits,
    alive: Callable[[], None],
) -> None:
    rate = stream.rate if stream.rate in _AAC_RATES else _AAC_RATE
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    encoded = container.add_stream("aac", rate=rate, layout=layout)
    encoded.bit_rate = _BITS_PER_CHANNEL * encoded.codec_context.channels
    resampler = AudioResampler("fltp", layout, rate)
    begins: int | None = None
    for packet in _read(source, stream):
        alive()
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue  # a hole where the file is damaged
        for frame in frames:
            if frame.pts is not None and frame.time_base is not None:
                at = round((frame.pts * frame.time_base - first) * rate)
                begins = at if begins is None else begins
                if at - begins > rate * _GAP_S:
                    begins = _fill(begins, at, encoded, container, limits)
            begins = begins or 0
            for piece in resampler.resample(frame):
                begins = _put(piece, begins, rate, encoded, container, limits)
    for piece in resampler.resample(None):
        begins = _put(piece, begins or 0, rate, encoded, container, limits)
    if begins is None:
        raise UnsupportedMedia("the sound cannot be decoded")
    for packet in encoded.encode(None):
        container.mux_one(packet)


def _put(
    piece: av.AudioFrame, at: int, rate: int, stream: AudioStream, container: OutputContainer, limits: MediaLimits
) -> int:
    """Encode samples that are heard from sample number ``at`` on; return the number behind them."""
    _check_length(Fraction(at, rate), limits)
    piece.pts, piece.time_base = at, Fraction(1, rate)
    for packet in stream.encode(piece):
        container.mux_one(packet)
    return at + piece.samples


def _fill(at: int, end: int, stream: AudioStream, container: OutputContainer, limits: MediaLimits) -> int:
    """Encode silence from sample number ``at`` to ``end``, which is returned."""
    rate, layout, channels = stream.rate, stream.layout.name, stream.codec_context.channels
    while at < end:
        samples = np.zeros((channels, min(end - at, rate)), np.float32)
        piece = av.AudioFrame.from_ndarray(samples, "fltp", layout)
        piece.sample_rate = rate
        at = _put(piece, at, rate, stream, container, limits)
    return at


def _read(source: InputContainer, stream: AudioStream) -> Iterator[AudioPacket]:
    try:
        for packet in source.demux(stream):
            if packet.size and packet.dts is not None:
                yield packet
    except av.error.FFmpegError as error:
        raise DamagedMedia(f"the sound cannot be read: {error.strerror}") from error


def _packets(source: InputContainer, stream: AudioStream) -> Iterator[AudioPacket]:
    try:
        for packet in source.demux(stream):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        raise InputLost(f"the stored sound is damaged: {error.strerror}") from error


def _starts(packet: AudioPacket) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _check_length(seconds: Fraction, limits: MediaLimits) -> None:
    if seconds > limits.max_duration_s:
        raise MediaTooLarge(f"the sound is longer than {limits.max_duration_s:g} seconds")
