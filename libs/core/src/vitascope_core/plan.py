"""A job's stages, and which task follows which."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StageName(StrEnum):
    """A stage of the pipeline; also the second token of a task's subject."""

    DENOISE = "denoise"
    INGEST = "ingest"
    INTERPOLATE = "interpolate"
    UPSCALE = "upscale"
    UPLOAD = "upload"

    @property
    def is_source(self) -> bool:
        """Whether the stage makes frames from a spec rather than from chunks."""
        return self in (StageName.DENOISE, StageName.INGEST)

    @property
    def is_transform(self) -> bool:
        """Whether the stage maps one chunk to one chunk."""
        return self in (StageName.INTERPOLATE, StageName.UPSCALE)


@dataclass(frozen=True, slots=True)
class InterpolateOptions:
    """Frame interpolation: (N - 1) * 2**exp + 1 frames at fps * 2**exp.

    Attributes:
        exp: Doublings of the frame rate, 1 to 4.
        scale: Resolution of the flow relative to the frame; below 1 saves memory on large frames.
        model_path: Weights other than the stage's own, or "" for those.
    """

    exp: int = 1
    scale: float = 1.0
    model_path: str = ""


@dataclass(frozen=True, slots=True)
class UpscaleOptions:
    """Enlargement of every frame.

    Attributes:
        scale: Factor on width and height, 1 to 8; what is left of a pixel is dropped.
        model_path: Weights other than the stage's own, or "" for those.
    """

    scale: float = 4.0
    model_path: str = ""


Options = InterpolateOptions | UpscaleOptions


def enlarged(pixels: int, scale: float) -> int:
    """Return the length of a side of ``pixels`` times ``scale``."""
    return int(pixels * scale)


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of one job: a source, at most one of each transform, the upload."""

    source: StageName = StageName.DENOISE
    interpolate: InterpolateOptions | None = None
    upscale: UpscaleOptions | None = None

    @property
    def transforms(self) -> tuple[StageName, ...]:
        """The transforms in order: interpolation first, so that the upscaler sees every frame once."""
        chosen = ((StageName.INTERPOLATE, self.interpolate), (StageName.UPSCALE, self.upscale))
        return tuple(stage for stage, options in chosen if options is not None)

    @property
    def last(self) -> StageName:
        """The stage whose chunks the uploader writes."""
        return (self.source, *self.transforms)[-1]

    @property
    def frame_factor(self) -> int:
        """Factor on the frame rate: 2**exp of the interpolation, else 1."""
        return 2**self.interpolate.exp if self.interpolate else 1

    def enlarged(self, pixels: int) -> int:
        """Return the length of a finished side that has ``pixels`` before."""
        return enlarged(pixels, self.upscale.scale) if self.upscale else pixels

    def after(self, stage: StageName) -> StageName:
        """Return the stage that follows ``stage``; the upload follows the last."""
        stages = (self.source, *self.transforms, StageName.UPLOAD)
        return stages[stages.index(stage) + 1]

    def options(self, stage: StageName) -> Options:
        """Return the options of a transform of this plan."""
        options = {StageName.INTERPOLATE: self.interpolate, StageName.UPSCALE: self.upscale}.get(stage)
        if options is None:
            raise ValueError(f"the plan has no {stage} stage")
        return options
