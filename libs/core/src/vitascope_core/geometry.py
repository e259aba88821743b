"""Sizes, frame counts and chunk cuts."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from vitascope_core.errors import InvalidRequest
from vitascope_core.plan import Plan

CHUNK_BYTES = 16 * 1024 * 1024
"""Raw frames that a chunk aims at: S3 puts and gets peak here, and one retry costs little."""

MOST_CHUNK_BYTES = 256 * 1024 * 1024
"""Raw frames that a chunk has at most, unless a single frame is larger: 1.5 s of 4K at 60 Hz would be 2.2 GB, and every
stage has to hold a chunk."""

LONGEST_SIDE = 16384
"""Pixels that a video can have on a side."""

LONGEST_SIDES = {"mp4": LONGEST_SIDE, "webp": 16383, "jpeg": 65535}
"""Pixels that a file of the format can have on a side; PNG holds more than any plan makes."""

MOST_PICTURE_PIXELS = 1 << 29
"""Pixels of a finished picture that is made from an existing one: 1.5 GiB of RGB, which every stage has to hold."""

MIN_SEGMENT_S = 2.0
"""Seconds of output in a segment: shorter ones compress badly (13 frames cost 60 to 110 % more bytes)."""

_SIZE = re.compile(r"([1-9]\d{0,5})[xX×]([1-9]\d{0,5})")


def parse_size(text: str, field: str = "size") -> tuple[int, int]:
    """Return (width, height) from ``"832x480"``.

    Raises:
        InvalidRequest: The text is not of that form.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(field, text, "WIDTHxHEIGHT with positive integers, for example 832x480")
    return int(match[1]), int(match[2])


def cut_frames(num_frames: int, width: int, height: int, fps: Fraction, plan: Plan) -> tuple[int, ...]:
    """Return the frames of each chunk of an output, as the source makes them.

    Chunks are as long as `chunk_length` says, but for the last: what is too short for one joins the one before it.
    """
    size = chunk_length(width, height, fps, plan)
    return cuts_of(num_frames, size, least=None if plan.upscale is None else shortest_segment(size, fps, plan))


def chunk_length(width: int, height: int, fps: Fraction, plan: Plan) -> int:
    """Return how many frames a chunk holds, as the source makes it.

    It holds about `CHUNK_BYTES` once frames are put between its own; when the plan upscales it becomes a segment, so it
    holds at least `MIN_SEGMENT_S` of output as well, as far as that is not more than `MOST_CHUNK_BYTES`.

    Args:
        width: Pixels of a frame.
        height: Pixels of a frame.
        fps: Frames a second, before interpolation.
        plan: What becomes of it.
    """
    grown = width * height * 3 * plan.frame_factor
    size = max(1, CHUNK_BYTES // grown)
    if plan.upscale is None:
        return size
    return max(size, min(_segment_frames(fps, plan), MOST_CHUNK_BYTES // grown))


def shortest_segment(size: int, fps: Fraction, plan: Plan) -> int:
    """Return how many frames are left for a segment of their own at the end of an output, of chunks of ``size``."""
    return min(size, _segment_frames(fps, plan))


def _segment_frames(fps: Fraction, plan: Plan) -> int:
    """Return how many frames of a source make a segment that is long enough."""
    # Nothing is put before the first frame of an output, so its first chunk makes that much less.
    return math.ceil(Fraction(MIN_SEGMENT_S) * fps + 1 - Fraction(1, plan.frame_factor))


def cuts_of(num_frames: int, size: int, least: int | None = None) -> tuple[int, ...]:
    """Return cuts of ``size`` frames; a remainder of fewer than ``least`` joins the cut before it.

    By default that is a quarter of ``size``: tiny chunks cost more than they save.
    """
    whole, rest = divmod(num_frames, size)
    if whole == 0:
        return (num_frames,)
    if rest == 0:
        return (size,) * whole
    if rest < (size / 4 if least is None else least):
        return (*(size,) * (whole - 1), size + rest)
    return (*(size,) * whole, rest)


def check_frame_size(field: str, width: int, height: int, most: int, scale: float) -> None:
    """Refuse frames that the upscaler has no memory for.

    Args:
        field: What the client may change.
        width: Pixels of a frame before it is enlarged.
        height: Pixels of a frame before it is enlarged.
        most: Pixels that a frame may have; 0 for any number.
        scale: By how much it is enlarged.

    Raises:
        InvalidRequest: Frames are too large.
    """
    if most and width * height > most:
        allowed = f"at most {most} pixels in all, which the upscaler has memory for at upscaling_scale {scale:g}"
        raise InvalidRequest(field, f"{width}x{height}", allowed)


def interpolated_start(start: int, factor: int) -> int:
    """Return the number of the first output frame of a chunk whose first input frame is ``start``.

    A chunk that follows another begins behind its lead frame, with the frames synthesised between the two.
    """
    return 0 if start == 0 else (start - 1) * factor + 1
