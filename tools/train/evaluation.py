"""How well the demonstration models do what they were taught, on combinations that they never saw."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline, WanPipeline
from PIL import Image
from torch import Tensor

from tools.train.checker import Seen, look, stripedness
from tools.train.scenes import FRAMES, SIDE, Combination, caption, draw, moments, scene, split
from vitascope_models.catalogue import embedded

STEPS = 16
GUIDANCE = 3.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Shares of clips, 0..1, in which the checker found what was asked for.

    Attributes:
        clips: How many clips.
        colour, shape, background: Of the object, of its outline, of what is behind it.
        direction: The motion, over all seven.
        seconds: Time of one clip, in the mean.
    """

    clips: int
    colour: float
    shape: float
    background: float
    direction: float
    seconds: float


def from_texts(pipe: Any, wanted: Sequence[Combination], seed: int = 5, steps: int = STEPS) -> Figures:
    """Return how often clips made from captions show what those say."""
    random = Random(seed)
    started = time.monotonic()
    found = [
        (what, look(clip(pipe, caption(what, random, whole=True), random.randrange(2**31), steps=steps)))
        for what in wanted
    ]
    return _figures(found, time.monotonic() - started)


def from_frames(pipe: Any, wanted: Sequence[Combination], seed: int = 6, steps: int = STEPS) -> Figures:
    """Return how often clips made from a first frame and a caption keep the object and move it as told."""
    random = Random(seed)
    parts = {name: part for name, part in pipe.components.items() if name != "image_processor"}
    kind: Any = WanImageToVideoPipeline
    to_video = kind(**parts, expand_timesteps=True)
    to_video.set_progress_bar_config(disable=True)
    started = time.monotonic()
    found = []
    for what in wanted:
        first = draw([scene(what, random)], moments()[:1])[0, :, 0]
        picture = Image.fromarray((first.permute(1, 2, 0) * 255).round().byte().numpy())
        text = caption(what, random, whole=True)
        found.append((what, look(clip(to_video, text, random.randrange(2**31), steps=steps, image=picture))))
    return _figures(found, time.monotonic() - started)


def stripes(pipe: Any, wanted: Sequence[Combination], seed: int = 8, steps: int = STEPS) -> float:
    """Return how striped the objects of clips are, in the mean (`checker.stripedness`)."""
    random = Random(seed)
    clips = (
        clip(pipe, caption(what, random, whole=True), seed + place, steps=steps) for place, what in enumerate(wanted)
    )
    return sum(map(stripedness, clips)) / len(wanted)


def packed(name: str) -> Path:
    """Return the folder of one of the package's models.

    Raises:
        LookupError: It has no such model.
    """
    folder = embedded(name)
    if folder is None:
        raise LookupError(f"{name} is no demonstration model")
    return folder


def opened(folder: Path) -> Any:
    """Return the packed pipeline as diffusers opens it."""
    kind: Any = WanPipeline
    pipe = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def held_out(count: int) -> list[Combination]:
    """Return combinations that were not trained on, at most 200."""
    _, kept = split()
    return kept[:count]


def clip(pipe: Any, text: str, seed: int, *, steps: int = STEPS, **more: Any) -> Tensor:
    """Return a generated clip, float32 (3, T, H, W) in 0..1."""
    frames = pipe(
        prompt=text,
        height=SIDE,
        width=SIDE,
        num_frames=FRAMES,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="pt",
        **more,
    ).frames
    made: Tensor = frames[0].transpose(0, 1).float().cpu().clamp(0, 1)
    return made


def _figures(found: Sequence[tuple[Combination, Seen]], seconds: float) -> Figures:
    def share(hits: Iterator[bool]) -> float:
        return sum(hits) / len(found)

    return Figures(
        clips=len(found),
        colour=share(seen.colour == what.colour for what, seen in found),
        shape=share(seen.shape == what.shape for what, seen in found),
        background=share(seen.background == what.background for what, seen in found),
        direction=share(seen.motion == what.motion for what, seen in found),
        seconds=seconds / len(found),
    )
