"""Trains, exports and measures the demonstration weights of upscaling: a small SRVGGNetCompact, learned on drawings.

It is taught the true picture alone, without a discriminator.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021
    (arXiv:2107.10833); the network of its later models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from tools.train import scenes
from tools.train.drawings import View
from tools.train.fidelity import Fidelity, as_bytes, as_floats, decibels, write_weights
from tools.train.pictures import HELD_OUT_SEED, MIDDLE, captioned, held_out, movies, softened
from tools.train.training import Recipe, Training, halves_pay
from vitascope_core.plan import UpscaleOptions
from vitascope_frames.chunk import Chunk, Frames
from vitascope_upscaler.architecture import COLOURS, Compact
from vitascope_upscaler.checkpoints import names_of
from vitascope_upscaler.settings import UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler
from vitascope_weights.device import Device

STEPS = 4200
BATCH = 16

SCALE = 4
ARCHITECTURE = Compact(features=24, convolutions=8, scale=SCALE)

STATE = "srvgg.pt"
WEIGHTS = names_of(SCALE)[1]
"""What the file is called that `export` writes and the upscaler looks for."""

_RATE = 2e-3
_SIZE = 32
"""Side of the parts that are learned from, in small pixels."""
_SIDES = (48, 64, 64, 96)
"""Of the whole small pictures."""
_NOISE = 0.015
_EVEN = 0.1
"""Errors below this count by their square: else the many even places, where next to nothing is wrong, outvote edges."""


class Srvgg(nn.Module):
    """SRVGGNetCompact, written to be trained. Its parameters have the names of the public checkpoints.

    Args:
        half: Whether the convolutions compute in bfloat16, nearly twice as fast where `training.halves_pay`.
    """

    def __init__(self, *, half: bool = False) -> None:
        super().__init__()
        self._half = half
        wide = ARCHITECTURE.features
        body = nn.ModuleList()
        for place in range(ARCHITECTURE.convolutions + 1):
            body += [_convolution(wide if place else COLOURS, wide, gain=1.0), nn.PReLU(wide)]
        body.append(_convolution(wide, COLOURS * SCALE**2, gain=0.1))
        self.body = body
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> Tensor:
        """Map float32 (N, 3, H, W) in 0..1 to (N, 3, SCALE * H, SCALE * W), not held in 0..1."""
        x = frames.contiguous(memory_format=torch.channels_last)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self._half):
            for layer in self.body:
                x = layer(x)
        added = F.pixel_shuffle(x.float(), SCALE)
        return added + F.interpolate(frames, scale_factor=SCALE, mode="nearest")


def _convolution(inputs: int, outputs: int, gain: float) -> nn.Conv2d:
    """Return a convolution that keeps the size of its values: PyTorch's own start lets little through many of them."""
    layer = nn.Conv2d(inputs, outputs, 3, 1, 1)
    nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / (1 + 0.25**2) / (9 * inputs)))
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Drawings small and large: float32 (N, 3, H, W) and (N, 3, SCALE * H, SCALE * W) in 0..1."""

    small: Tensor
    large: Tensor


def train(folder: Path, steps: int = STEPS, *, until: int | None = None, batch: int = BATCH) -> None:
    """Train, or go on with what was begun.

    Args:
        folder: Where the state is kept, as `STATE`.
        steps: How many there are in all.
        until: Where to stop for now; None for the end.
        batch: Parts of pictures in a step.
    """
    training = _training(folder, steps)
    network = training.network

    def loss(_: int, random: Random) -> Tensor:
        pairs = drawn_pairs(random, batch)
        return F.smooth_l1_loss(network(pairs.small), pairs.large, beta=_EVEN)

    training.run(loss, until)


def export(folder: Path, to: Path) -> Path:
    """Write the averaged weights of a training into a folder, as float16, and return the file.

    Raises:
        FileNotFoundError: Nothing was trained.
    """
    training = _training(folder, STEPS)
    training.check_begun()
    return write_weights(training.averaged(), to / WEIGHTS)


def _training(folder: Path, steps: int) -> Training[Srvgg]:
    return Training.begun(
        folder / STATE,
        lambda: Srvgg(half=halves_pay(torch.device("cpu"))),
        Recipe(steps=steps, rate=_RATE, warm_up=200, average=0.999),
    )


def drawn_pairs(random: Random, count: int) -> Pairs:
    """Return parts of random drawings, and behind them a quarter of caption scenes; some small ones soft or noisy."""
    generator = torch.Generator().manual_seed(random.getrandbits(62))
    side = random.choice(_SIDES)
    part = View(side, random.randint(0, side - _SIZE), random.randint(0, side - _SIZE), _SIZE, _SIZE)
    said = max(1, count // 4)
    moving, drawn = movies(count - said, side, generator), captioned(said, random)
    time = random.random()

    def frame(view: View) -> Tensor:
        return torch.cat((moving.frame(MIDDLE, view), scenes.draw(drawn, [time], view)[:, :, 0]))

    pairs = pairs_of(frame, part, averaged=random.random() < 0.5)
    # What a video model draws is softer than a drawing and not quite even; what is learned is the drawing.
    small = softened([pairs.small], generator)[0]
    strength = _NOISE * torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.randn(small.shape, generator=generator) * strength
    noisy = torch.rand(count, 1, 1, 1, generator=generator) < 0.3
    return Pairs(torch.where(noisy, small + noise, small).clamp_(0, 1), pairs.large)


def pairs_of(frame: Callable[[View], Tensor], part: View, *, averaged: bool) -> Pairs:
    """Return a part of drawings, and the same large.

    Args:
        frame: Draws it.
        part: Where it is, in small pixels, with width and height.
        averaged: Whether the small one is the mean of the large one's squares of pixels; else it is drawn.
    """
    width, height = part.width or part.side - part.left, part.height or part.side - part.top
    large = frame(View(*(SCALE * size for size in (part.side, part.left, part.top, width, height))))
    return Pairs(F.avg_pool2d(large, SCALE) if averaged else frame(part), large)


@dataclass(frozen=True, slots=True)
class Measured:
    """What weights are worth on pictures that were never trained on, through the upscaler; plain is bicubic.

    Attributes:
        captions: Caption scenes of held-out combinations.
        drawings: Random drawings.
    """

    captions: Fidelity
    drawings: Fidelity


def evaluate(weights: Path, clips: int = 64) -> Measured:
    """Measure weights.

    Args:
        weights: A file, or the folder that `export` wrote to.
        clips: How many pictures of each kind.
    """
    upscaler = Upscaler(UpscalerSettings(model_path=str(weights), device=Device.CPU))
    captions, drawings = measured_pairs(clips)
    return Measured(_fidelity(upscaler, captions), _fidelity(upscaler, drawings))


def measured_pairs(clips: int) -> tuple[Pairs, Pairs]:
    """Return held-out caption scenes and random drawings, 64 x 64 and 256 x 256."""
    drawn = held_out(clips)
    moving = movies(clips, scenes.SIDE, torch.Generator().manual_seed(HELD_OUT_SEED))
    captions = pairs_of(lambda view: scenes.draw(drawn, [0.3], view)[:, :, 0], View(scenes.SIDE), averaged=False)
    return captions, pairs_of(lambda view: moving.frame(MIDDLE, view), View(scenes.SIDE), averaged=False)


def enlarged(upscaler: Upscaler, frames: Frames, scale: int = SCALE) -> Frames:
    """Return uint8 (N, scale * H, scale * W, 3) through the upscaler."""
    chunk = Chunk(frames, output=0, index=0, start=0, last=True, fps=Fraction(scenes.FPS))
    return upscaler.apply(chunk, UpscaleOptions(scale=scale)).frames


def bicubic(frames: Frames) -> Frames:
    """Return uint8 (N, SCALE * H, SCALE * W, 3) by bicubic interpolation."""
    return as_bytes(F.interpolate(as_floats(frames), scale_factor=SCALE, mode="bicubic", align_corners=False))


def _fidelity(upscaler: Upscaler, pairs: Pairs) -> Fidelity:
    small, large = as_bytes(pairs.small), as_bytes(pairs.large)
    made = [(enlarged(upscaler, small), large), (bicubic(small), large)]
    network, plain = (float(np.mean([decibels(*each) for each in zip(*both, strict=True)])) for both in made)
    return Fidelity(network, plain)
