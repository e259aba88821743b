"""What is asked of the process that reads a file, and the messages in which it answers.

A message is a byte for its kind, the length of its body in eight bytes, the body.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from vitascope_core.geometry import LONGEST_SIDE
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_frames.media_file import MediaLimits

HEAD_BYTES = 9


class Kind(IntEnum):
    """What a message says."""

    ALIVE = 1
    """It works; the body is empty."""
    OPENED = 2
    """JSON: width, height, fps, frames, sound."""
    CHUNK = 3
    """A chunk as `vitascope_frames.codec` writes it."""
    ERROR = 4
    """JSON: code, message."""
    END = 5
    """All chunks were sent; the body is empty."""


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """What to read and how.

    Attributes:
        path: The file.
        sound: Where its sound is to be written, if it has any.
        interpolate: How often the plan doubles the frame rate later: chunks are then shorter.
        upscale: Factor by which the plan enlarges the frames later, 0 if it does not: chunks are then longer, and
            frames may not be as large.
        chunk_frames: Frames of a chunk; 0 for as many as the plan calls for.
        picture: Whether it is a still picture: one frame, which may have a fourth channel.
        longest_side: Pixels that the finished file can have on a side; 0 for any number.
        limits: What the file may ask for.
        memory_bytes: What the process may allocate; 0 for as much as it likes.
    """

    path: Path
    sound: Path
    interpolate: int = 0
    upscale: float = 0
    chunk_frames: int = 0
    picture: bool = False
    longest_side: int = LONGEST_SIDE
    limits: MediaLimits = field(default_factory=MediaLimits)
    memory_bytes: int = 0

    @property
    def plan(self) -> Plan:
        """As much of the plan as chunks depend on."""
        return Plan(
            StageName.INGEST,
            InterpolateOptions(self.interpolate) if self.interpolate else None,
            UpscaleOptions(self.upscale) if self.upscale else None,
        )

    def to_json(self) -> str:
        """Return the request as an argument of the process."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> MediaRequest:
        """Return the request that `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["limits"] = MediaLimits(**values["limits"])
        return cls(**{**values, "path": Path(values["path"]), "sound": Path(values["sound"])})


def head(kind: Kind, length: int) -> bytes:
    """Return what stands before a message's body."""
    return bytes((kind,)) + length.to_bytes(HEAD_BYTES - 1, "big")
