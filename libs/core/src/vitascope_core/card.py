"""Cards: what a pool or a stage can do, as data.

The gateway merges every request with a card before anything is queued; no other place knows defaults and limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from vitascope_core.errors import InvalidRequest
from vitascope_core.plan import StageName


class Mode(StrEnum):
    """What a model turns into what."""

    TEXT_TO_IMAGE = "text-to-image"
    TEXT_TO_VIDEO = "text-to-video"


@dataclass(frozen=True, slots=True)
class Limits:
    """The integers that a field may take: low, low + multiple, … up to high."""

    low: int
    high: int
    multiple: int = 1

    def check(self, field: str, value: int) -> int:
        """Return ``value``.

        Raises:
            InvalidRequest: It is outside, naming the nearest values inside.
        """
        if self.low <= value <= self.high and (value - self.low) % self.multiple == 0:
            return value
        raise InvalidRequest(field, value, self.describe(value))

    def describe(self, value: int) -> str:
        """Say what is allowed, and the nearest allowed values when only the step is wrong."""
        text = f"from {self.low} to {self.high}"
        if self.multiple == 1:
            return text
        remainder = self.low % self.multiple
        step = f"a multiple of {self.multiple}" + (f" plus {remainder}" if remainder else "")
        if not self.low <= value <= self.high:
            return f"{step}, {text}"
        below = value - (value - self.low) % self.multiple
        near = [str(v) for v in (below, below + self.multiple) if v <= self.high]
        return f"{step}, {text} (nearest: {' or '.join(near)})"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request gets where it is silent."""

    width: int
    height: int
    num_inference_steps: int
    num_frames: int = 1
    fps: Fraction = Fraction(16)
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a pool can do.

    Attributes:
        pool: Slug, ``[a-z0-9-]{1,40}``.
        id: Model name as clients write it, for example a Hugging Face id.
        aliases: Other names that clients may write.
        modes: What the model makes.
        num_frames: Frames of one output; low == high == 1 for image models.
        max_pixels: Bound on width * height * frames of one output.
        honours: Optional request fields that the model uses; any other is refused.
        created: Unix seconds, for ``GET /v1/models``.
        pipeline: Class of the pipeline, for people.
        note: A sentence for people, shown at start.
        resumable: Whether an interrupted job goes on at its last checkpoint rather than at the first step.
    """

    pool: str
    id: str
    modes: tuple[Mode, ...]
    width: Limits
    height: Limits
    num_frames: Limits
    num_inference_steps: Limits
    defaults: Defaults
    aliases: tuple[str, ...] = ()
    honours: tuple[str, ...] = ("negative_prompt", "guidance_scale")
    max_outputs: int = 10
    max_pixels: int = 2**31
    max_prompt_chars: int = 32_000
    created: int = 0
    pipeline: str = ""
    note: str = ""
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class StageCard:
    """What the workers of a transform can do.

    Attributes:
        exps: Interpolation exponents.
        flow_scales: Interpolation scales.
        scales: Upscaling factors.
        models: Weights that requests may name, the stage's own first.
        max_pixels: For each of ``scales`` the bound on width * height of a frame before it is enlarged with the stage's
            own weights; empty where there is none.
    """

    stage: StageName
    exps: tuple[int, ...] = ()
    flow_scales: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    models: tuple[str, ...] = ()
    max_pixels: tuple[int, ...] = ()
