"""What is asked of the cluster: the forms of jobs, and requests that must be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.nemesis.inverter import DEADLY, REFUSED
from vitascope_core.errors import InvalidWeights, WorkerCrashed
from vitascope_core.job import JobKind

_INVERTED: dict[str, Any] = {"enable_upscaling": True, "upscaling_scale": 1}


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of job.

    Attributes:
        fields: Of the request, but for prompt and seed.
        outputs: Pictures or videos that it makes.
        frames: Frames of each.
        doom: Code with which it fails by itself; "" for a job that can succeed.
    """

    kind: JobKind
    fields: Mapping[str, Any]
    outputs: int = 1
    frames: int = 1
    doom: str = ""

    @property
    def inverted(self) -> bool:
        """Whether its frames pass the transform."""
        return "enable_upscaling" in self.fields


def _video(frames: int, chunk_frames: int, n: int = 1, doom: str = "", **fields: Any) -> Form:
    cuts = {"num_frames": frames, "chunk_frames": chunk_frames, "n": n}
    return Form(JobKind.VIDEO, {"size": "64x64", "num_inference_steps": 6, **cuts, **fields}, n, frames, doom)


def _image(n: int, **fields: Any) -> Form:
    return Form(JobKind.IMAGE, {"size": "64x64", "num_inference_steps": 6, "n": n, **fields}, n)


def _size(side: tuple[int, int]) -> str:
    return "{}x{}".format(*side)


FORMS: Mapping[str, Form] = {
    "picture": _image(1),
    "pictures": _image(3),
    "inverted pictures": _image(2, **_INVERTED),
    "clip": _video(5, 5),
    "inverted clip": _video(5, 5, **_INVERTED),
    "film": _video(24, 3),
    "inverted film": _video(24, 2, **_INVERTED),
    "inverted films": _video(8, 2, n=2, **_INVERTED),
    "hopeless": _video(4, 2, doom=InvalidWeights.code, **_INVERTED | {"size": _size(REFUSED)}),
    "poison": _video(2, 2, doom=WorkerCrashed.code, **_INVERTED | {"size": _size(DEADLY)}),
}

POISON = "poison"
SEEDS = 2
"""Different seeds of each form; more would only mean more references."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that must be refused, and how."""

    path: str
    fields: Mapping[str, Any]
    status: int
    code: str
    param: str = ""
    whole: bool = False
    """Whether ``fields`` is all of it; else a prompt is added."""


REFUSALS = (
    Refusal("/v1/videos", {"num_frames": -1}, 400, "invalid_value", "num_frames"),
    Refusal("/v1/videos", {"num_frames": 3}, 400, "missing_required_parameter", "prompt", whole=True),
    Refusal("/v1/videos", {"nun_frames": 3}, 400, "unknown_parameter", "nun_frames"),
    Refusal("/v1/videos", {"size": "17x16"}, 400, "invalid_value", "size"),
    Refusal("/v1/videos", {"model": "no-such-model"}, 404, "model_not_found", "model"),
    Refusal("/v1/videos", {"enable_frame_interpolation": True}, 400, "unsupported_parameter"),
    Refusal("/v1/images/generations", {"n": 99}, 400, "invalid_value", "n"),
    Refusal("/v1/images/generations", {"seed": "seven"}, 400, "invalid_type", "seed"),
)
