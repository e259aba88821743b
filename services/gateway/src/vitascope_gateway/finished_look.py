"""What a finished video is like, as far as is known before it is finished."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from vitascope_core.job import JobKind, JobSpec, Media
from vitascope_gateway.ledger import JobView


class Look(NamedTuple):
    """Size, rate and length of a finished file.

    Attributes:
        frames: 0 while that is unknown.
    """

    width: int
    height: int
    fps: Fraction
    frames: int


def finished_look(view: JobView) -> Look | None:
    """Return what the finished file is or will be like; None while that is unknown."""
    spec = view.spec
    for record in view.end.files if view.end is not None else ():
        if record.variant == str(JobKind.VIDEO):
            fps, frames = spec.out_fps or record.fps, spec.out_frames or record.frames
            return Look(record.width, record.height, fps, frames)
    media = _generated(spec) if spec.ingest is None else _media_of(view)
    if media is None:
        return None
    factor = spec.plan.frame_factor
    frames = (media.frames - 1) * factor + 1 if media.frames else 0
    width, height = spec.plan.enlarged(media.width), spec.plan.enlarged(media.height)
    fps = media.fps * (factor if media.frames != 1 else 1)
    # H.264 with 4:2:0 has even sides only; the uploader repeats the last row or column.
    return Look(width + width % 2, height + height % 2, fps, frames)


def _generated(spec: JobSpec) -> Media:
    """Return what a job that generates a video makes before anything is done to it."""
    return Media(spec.denoise.width, spec.denoise.height, spec.fps, spec.denoise.num_frames)


def _media_of(view: JobView) -> Media | None:
    found = view.source.media if view.source is not None else None
    return found or (view.spec.ingest.known if view.spec.ingest is not None else None)
