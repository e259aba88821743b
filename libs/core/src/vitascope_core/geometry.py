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

MIN_SEGMENT_S = 1.5
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

    Chunks are as long as `chunk_length` says, but for the last.
    """
    size = chunk_length(width, height, fps, plan)
    return cuts_of(num_frames, size, least=None if plan.upscale is None else min(size, math.ceil(MIN_SEGMENT_S * fps)))


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
    return max(size, min(math.ceil(MIN_SEGMENT_S * fps), MOST_CHUNK_BYTES // grown))


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


def interpolated_start(start: int, factor: int) -> int:
    """Return the number of the first output frame of a chunk whose first input frame is ``start``.

    A chunk that follows another begins behind its lead frame, with the frames synthesised between the two.
    """
    return 0 if start == 0 else (start - 1) * factor + 1
