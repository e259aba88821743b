"""Segments that are joined against a video in one piece, at equal CRF: decibels, bytes and CPU time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.drawn_clip import Frames, drawn_clip
from vitascope_core.geometry import MIN_SEGMENT_S, cuts_of
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.segments import encode_segment, join_segments
from vitascope_frames.video_file import encode_video, read_frames

FRAMES, WIDTH, HEIGHT = 161, 480, 272
RATES = (Fraction(16), Fraction(24), Fraction(32))
CRFS = (22, 25, 33)


def _cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _joined(clip: Frames, fps: Fraction, quality: VideoQuality, path: Path) -> None:
    length = math.ceil(MIN_SEGMENT_S * fps)
    segments, start = [], 0
    for count in cuts_of(len(clip), length, length):
        segments.append(encode_segment(clip[start : start + count], count, start, fps, quality))
        start += count
    join_segments(segments, fps, path)


def _psnr(path: Path, clip: Frames) -> float:
    squares = [
        np.mean((decoded.astype(np.float32) - clip[number]) ** 2)
        for number, decoded in read_frames(path, range(len(clip)))
    ]
    return float(10 * np.log10(255**2 / np.mean(squares)))


def _compared(clip: Frames, fps: Fraction, folder: Path) -> str:
    whole, joined = folder / "whole.mp4", folder / "joined.mp4"
    decibels, sizes, seconds = [], [], []
    for crf in CRFS:
        quality = VideoQuality(crf)
        before = _cpu_seconds(lambda: encode_video(clip, fps, quality, whole))  # noqa: B023 - called at once
        after = _cpu_seconds(lambda: _joined(clip, fps, quality, joined))  # noqa: B023
        decibels.append(_psnr(joined, clip) - _psnr(whole, clip))
        sizes.append(joined.stat().st_size / whole.stat().st_size)
        seconds.append(after / before)
    worst = min(decibels, key=lambda value: -abs(value))
    return (
        f"{float(fps):g} frames/s   worst {worst:+.2f} dB (within 0.5), bytes ratio {max(sizes):.2f} (1.5), "
        f"CPU time ratio {statistics.median(seconds):.2f}"
    )


async def measure() -> list[str]:
    """Return the lines of the report."""
    crfs = ", ".join(map(str, CRFS))
    clips = {camera: drawn_clip(FRAMES, WIDTH, HEIGHT, still=camera == "still") for camera in ("moving", "still")}
    with TemporaryDirectory() as folder:
        return [
            f"{WIDTH}x{HEIGHT}, {FRAMES} frames, CRF {crfs}, segments of {MIN_SEGMENT_S:g} s or more",
            *(
                f"{camera} camera, {_compared(clip, fps, Path(folder))}"
                for camera, clip in clips.items()
                for fps in RATES
            ),
        ]
