"""Clips that others might send, made with PyAV: shapes that move by a known amount each frame, and a tone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vitascope_frames.testcard import draw

RATE = 48000
CLOCK = Fraction(1, 90000)


def frame(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A testcard: its number can be read off its pixels."""
    return draw(number, width, height, seed=3)


def clip(
    path: Path,
    frames: int = 12,
    *,
    fps: Fraction | int = 24,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    lossless: bool = False,
    times: Sequence[Fraction] | None = None,
    sound: str | None = None,
    sound_from: Fraction = Fraction(0),
    sound_pause: Fraction = Fraction(0),
    rotation: int | None = None,
    tags: dict[str, int] | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    second: bool = False,
) -> Path:
    """Write a clip of testcards.

    ``times`` are those of its frames in seconds, if not regular; ``sound_pause`` is a hole in the middle of its sound.
    """
    extra: dict[str, str] = {"crf": "0"} if lossless and codec == "libx264rgb" else {}
    with av.open(path, "w", options=options or {}) as container:
        streams = [_video(container, codec, fps, size, pix_fmt, extra, aspect, tags) for _ in range(1 + second)]
        if times is not None:
            streams[0].codec_context.time_base = CLOCK
        if rotation is not None:
            streams[0].set_display_rotation(rotation)
        heard = None
        if sound is not None:
            heard = container.add_stream(sound, rate=RATE, layout="stereo")
        for number in range(frames):
            for place, stream in enumerate(streams):
                # The second stream counts from 1000 on.
                picture = av.VideoFrame.from_ndarray(frame(number + 1000 * place, *size), "rgb24")
                picture = picture.reformat(format=pix_fmt, dst_colorspace=1 if "yuv" in pix_fmt else None)
                clock = 1 / Fraction(fps) if times is None else CLOCK
                at = Fraction(number) / fps if times is None else times[number]
                picture.pts, picture.time_base = round(at / clock), clock
                for packet in stream.encode(picture):
                    container.mux(packet)
        for stream in streams:
            for packet in stream.encode(None):
                container.mux(packet)
        if heard is not None:
            for packet in _tone(heard, Fraction(frames) / fps, sound_from, sound_pause):
                container.mux(packet)
    return path


def _video(container: Any, codec: str, fps: Any, size: Any, pix_fmt: str, extra: Any, aspect: Any, tags: Any) -> Any:
    stream = container.add_stream(codec, rate=fps, options=extra)
    stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
    context = stream.codec_context
    context.thread_count = 1
    if codec.startswith("libx26"):
        stream.options = {"preset": "ultrafast", **extra}
    if "yuv" in pix_fmt:
        context.colorspace = 1
    for name, value in (tags or {}).items():
        setattr(context, name, value)
    if aspect is not None:
        context.sample_aspect_ratio = aspect
    context.time_base = 1 / Fraction(fps)
    return stream


def _tone(stream: Any, seconds: Fraction, begins: Fraction, pause: Fraction) -> Any:
    total = int(seconds * RATE)
    kind = stream.codec_context.format.name
    for at in range(0, total, 960):
        count = min(960, total - at)
        wave = 0.3 * np.sin(2 * np.pi * 440 * (np.arange(count) + at) / RATE)
        data = np.stack([wave, wave]).astype(np.float32)
        if kind == "s16":
            data = (data.T.reshape(1, -1) * 32767).astype(np.int16)
        if kind == "flt":
            data = data.T.reshape(1, -1).copy()
        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), kind, "stereo")
        piece.sample_rate, piece.pts = RATE, at + int((begins + (pause if at * 2 >= total else 0)) * RATE)
        yield from stream.encode(piece)
    yield from stream.encode(None)


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """Return when each packet of a file's sound is heard, and its bytes."""
    with av.open(path) as container:
        stream = container.streams.audio[0]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]
