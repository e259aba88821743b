"""A chunk of frames and a segment of video: what travels between stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive frames of one output.

    Attributes:
        frames: uint8 (T, H, W, C), C = 3 (RGB) or 4 (RGBA), T >= 1.
        lead: uint8 (H, W, C), the last frame of the chunk before it, so that a chunk can be interpolated alone; None in
            the first chunk of an output.
        output: Which of the job's outputs.
        index: Place of the chunk in its output, from 0.
        start: Number of its first frame in its output.
        last: Whether it is the last of its output.
        fps: Frames a second.
    """

    frames: Frames
    output: int
    index: int
    start: int
    last: bool
    fps: Fraction
    lead: Frames | None = None

    def __post_init__(self) -> None:
        frames, lead = self.frames, self.lead
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (3, 4) or not frames.shape[0]:
            raise ValueError(f"frames must be uint8 (T, H, W, 3 or 4), got {frames.dtype} {frames.shape}")
        if lead is not None and (lead.dtype != np.uint8 or lead.shape != frames.shape[1:]):
            raise ValueError(f"lead must be uint8 {frames.shape[1:]}, got {lead.dtype} {lead.shape}")

    def with_frames(self, frames: Frames) -> Chunk:
        """Return the chunk with other frames of the same number; identity and fps are kept, the lead is dropped."""
        return replace(self, frames=frames, lead=None)


@dataclass(frozen=True, slots=True)
class Segment:
    """A chunk encoded as a closed-GOP H.264 fragment (see `vitascope_frames.segments`)."""

    data: bytes
    output: int
    index: int
    start: int
    frames: int
    last: bool
    fps: Fraction
