"""Trains, exports and measures the demonstration weights of frame interpolation: RIFE 4.22.lite, learned on drawings.

Where RIFE's authors let a teacher that sees the true frame show the flow, here the drawings' own flow is known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from tools.train import scenes
from tools.train.drawings import View
from tools.train.fidelity import Fidelity, as_bytes, decibels, read_weights, write_weights
from tools.train.pictures import HELD_OUT_SEED, MIDDLE, captioned, held_out, movies, softened
from tools.train.rife import Guess, Rife
from tools.train.training import Recipe, Training, halves_pay
from vitascope_core.plan import InterpolateOptions
from vitascope_frames.chunk import Chunk, Frames
from vitascope_interpolator.interpolator import Interpolator
from vitascope_interpolator.settings import InterpolatorSettings
from vitascope_weights.device import Device

STEPS = 4400
FURTHER_STEPS = 1800
"""For weights that were trained before."""
BATCH = 24

STATE = "rife.pt"
WEIGHTS = "flownet.safetensors"
"""What the file is called that `export` writes and the interpolator looks for."""

_RATE, _FURTHER_RATE = 4e-4, 2e-4
_STAGE_WEIGHTS = (0.2, 0.3, 0.5, 1.0)
"""Of each stage's own frame in the loss."""
_FLOW_WEIGHT = 0.01
"""Of a pixel of error of the flow, at first; it falls to nothing over the first half of the training."""
_FINE_WEIGHT = 0.01
"""Of the logarithm of the last frame's squared error, which is what decibels count, where weights from before learn on.
Half of the loss as it is otherwise comes on top."""
_FINEST = 1e-5
"""Squared error from which on less hardly counts: 50 decibels."""
_NEXT_TO_NOTHING = 0.003
"""Mean error of averaging, of 1, below which pairs are taken for still."""
_SMALL, _LARGE = 64, 128
"""Sides of what is learned from: large in every eighth step."""
_SIDES = (64, 64, 96, 128)
"""Of the pictures that the small ones are cut from."""

_ALONG, _GROWING = ("right", "left", "up", "down"), ("grow", "shrink")


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of frames and what is between.

    Attributes:
        first, middle, second: float32 (N, 3, H, W) in 0..1.
        flow: float32 (M, 4, H, W) of the first M: where the middle's pixels are in the first frame and in the second,
            x, y, x, y in pixels.
    """

    first: Tensor
    middle: Tensor
    second: Tensor
    flow: Tensor


def train(
    folder: Path,
    steps: int | None = None,
    *,
    until: int | None = None,
    batch: int = BATCH,
    packed: Path | None = None,
) -> None:
    """Train, or go on with what was begun.

    Args:
        folder: Where the state is kept, as `STATE`.
        steps: How many there are in all; None for `STEPS`, or `FURTHER_STEPS` with weights from before.
        until: Where to stop for now; None for the end.
        batch: Pairs of 64 x 64 in a step; of 128 x 128 a sixth as many.
        packed: A folder of weights that were trained before, which are the first ones. Random ones without it.
    """
    steps = steps or (FURTHER_STEPS if packed else STEPS)
    training = _training(folder, steps, packed)
    network = training.network

    def loss(step: int, random: Random) -> Tensor:
        large = step % 8 == 7
        pairs = drawn_pairs(random, max(2, batch // 6) if large else batch, _LARGE if large else _SMALL)
        guesses = network(pairs.first, pairs.second)
        if packed:  # these weights know the flow
            return _fine_loss(guesses, pairs)
        return _loss(guesses, pairs, _FLOW_WEIGHT * max(0.0, 1 - 2 * step / steps))

    training.run(loss, until)


def export(folder: Path, to: Path) -> Path:
    """Write the averaged weights of a training into a folder, as float16, and return the file.

    Raises:
        FileNotFoundError: Nothing was trained.
    """
    training = _training(folder, STEPS)
    training.check_begun()
    return write_weights(training.averaged(), to / WEIGHTS)


def _training(folder: Path, steps: int, packed: Path | None = None) -> Training[Rife]:
    rate, seed = (_FURTHER_RATE, 2) if packed else (_RATE, 1)
    recipe = Recipe(steps=steps, rate=rate, warm_up=300, average=0.995, seed=seed)
    return Training.begun(folder / STATE, lambda: _first(packed), recipe)


def _first(packed: Path | None) -> Rife:
    network = Rife(half=halves_pay(torch.device("cpu")))
    if packed is not None:
        network.load_state_dict(read_weights(packed / WEIGHTS))
    return network


def _loss(guesses: Sequence[Guess], pairs: Pairs, flow_weight: float) -> Tensor:
    # Each pair counts by how much of averaging's error is left: else far motion, where errors are large, is all that
    # counts, and the gaps of a smooth clip are left to be no better than averaged.
    plain = ((pairs.first + pairs.second) / 2 - pairs.middle).abs().mean((1, 2, 3))
    share = 1 / (plain + _NEXT_TO_NOTHING)
    share = share / share.mean()
    total = pairs.first.new_zeros(())
    for guess, weight in zip(guesses, _STAGE_WEIGHTS, strict=True):
        total = total + weight * (share * _difference(guess.frame - pairs.middle)).mean()
        if flow_weight:
            total = total + weight * flow_weight * (guess.flow[: len(pairs.flow)] - pairs.flow).abs().mean()
    return total


def _fine_loss(guesses: Sequence[Guess], pairs: Pairs) -> Tensor:
    error = (guesses[-1].frame - pairs.middle).square().mean((1, 2, 3))
    return _loss(guesses, pairs, 0.0) / 2 + _FINE_WEIGHT * torch.log(error + _FINEST).mean()


def _difference(error: Tensor) -> Tensor:
    """Return the mean absolute error (N,) at full, half and quarter size: the small ones pull at what is far off."""
    half = F.avg_pool2d(error, 2)
    return sum((each.abs().mean((1, 2, 3)) for each in (error, half, F.avg_pool2d(half, 2))), error.new_zeros(()))


def drawn_pairs(random: Random, count: int, size: int) -> Pairs:
    """Return pairs of random drawings, moved by up to 16 pixels, and behind them as many caption scenes.

    Args:
        random: Where everything is drawn from.
        count: How many.
        size: Side of the frames: cut from larger pictures, or whole ones.
    """
    generator = torch.Generator().manual_seed(random.getrandbits(62))
    side = random.choice(_SIDES) if size == _SMALL else size
    view = View(side, random.randint(0, side - size), random.randint(0, side - size), size, size)
    said = max(1, count // 2)
    moving = movies(count - said, side, generator)
    flow = torch.cat([moving.flow(MIDDLE, to, view) for to in (0.0, 1.0)], 1)
    frames = [moving.frame(time, view) for time in (0.0, MIDDLE, 1.0)]
    frames = [torch.cat(both) for both in zip(frames, _said(random, said, size), strict=True)]
    if random.random() < 0.5:  # the other way round in time
        frames.reverse()
        flow = flow.roll(2, 1)
    first, middle, second = softened(frames, generator)
    return Pairs(first, middle, second, flow)


def _said(random: Random, count: int, size: int) -> tuple[Tensor, ...]:
    """Return caption scenes at the ends and in the middle of gaps from 0.4 of a frame to five frames."""
    drawn = captioned(count, random)
    gap = 0.5 * 2 ** random.uniform(-0.3, 3.3) / (scenes.FRAMES - 1)
    start = random.uniform(0, 1 - gap)
    return scenes.draw(drawn, [start, start + gap / 2, start + gap], View(size)).unbind(2)


@dataclass(frozen=True, slots=True)
class Measured:
    """What weights are worth on clips that were never trained on, through the interpolator; plain is averaging.

    Attributes:
        captions: Caption scenes of held-out combinations that move along, by 1.3 to 1.8 pixels a frame, doubled.
        captions_twice: The same, doubled twice.
        captions_apart: The same with every fourth frame alone, doubled.
        growing: Caption scenes of held-out combinations that change their size, whose edges move by 0.3 to 0.4 pixels
            a frame, doubled.
        drawings: Random drawings, moved by up to 16 pixels.
        still: Mean error of scenes that do not move, in levels of 255.
    """

    captions: Fidelity
    captions_twice: Fidelity
    captions_apart: Fidelity
    growing: Fidelity
    drawings: Fidelity
    still: float


def evaluate(weights: Path, clips: int = 64) -> Measured:
    """Measure weights.

    Args:
        weights: A file, or the folder that `export` wrote to.
        clips: How many of each kind.
    """
    interpolator = Interpolator(InterpolatorSettings(model_path=str(weights), device=Device.CPU))
    unmoved = captioned_clips(clips // 8 + 1, ("still",), 1, 1)
    return Measured(
        captions=_fidelity(interpolator, captioned_clips(clips, _ALONG, 16, 1), 1),
        captions_twice=_fidelity(interpolator, captioned_clips(clips, _ALONG, 16, 2), 2),
        captions_apart=_fidelity(interpolator, captioned_clips(clips, _ALONG, 4, 1), 1),
        growing=_fidelity(interpolator, captioned_clips(clips, _GROWING, 16, 1), 1),
        drawings=_fidelity(interpolator, drawn_clips(clips), 1),
        still=float(
            np.mean([np.abs(doubled(interpolator, clip[::2], 1)[1] - clip[1].astype(float)) for clip in unmoved])
        ),
    )


def captioned_clips(clips: int, motions: Collection[str], gaps: int, exp: int) -> list[Frames]:
    """Return held-out caption scenes, uint8 (gaps * 2**exp + 1, 64, 64, 3) each: the frames, and all between them."""
    times = np.linspace(0, 1, gaps * 2**exp + 1).tolist()
    return [as_bytes(clip.transpose(0, 1)) for clip in scenes.draw(held_out(clips, motions), times)]


def drawn_clips(clips: int) -> list[Frames]:
    """Return random drawings, uint8 (3, 64, 64, 3) each: two frames and the one between."""
    drawn = movies(clips, _SMALL, torch.Generator().manual_seed(HELD_OUT_SEED))
    frames = [drawn.frame(time, View(_SMALL)) for time in (0.0, MIDDLE, 1.0)]
    return [as_bytes(clip) for clip in torch.stack(frames, 1)]


def doubled(interpolator: Interpolator, frames: Frames, exp: int) -> Frames:
    """Return uint8 ((T - 1) * 2**exp + 1, H, W, 3) through the interpolator."""
    chunk = Chunk(frames, output=0, index=0, start=0, last=True, fps=Fraction(scenes.FPS))
    return interpolator.apply(chunk, InterpolateOptions(exp=exp)).frames


def averaged(frames: Frames, exp: int) -> Frames:
    """Return uint8 ((T - 1) * 2**exp + 1, H, W, 3): in each gap mixtures of its two frames."""
    places = np.arange((len(frames) - 1) * 2**exp + 1) / 2**exp
    before = np.minimum(places.astype(int), len(frames) - 2)
    share = (places - before)[:, None, None, None]
    mixed: Frames = np.rint(frames[before] * (1 - share) + frames[before + 1] * share).astype(np.uint8)
    return mixed


def _fidelity(interpolator: Interpolator, clips: Sequence[Frames], exp: int) -> Fidelity:
    """Return how near the new frames come to those of clips of which every 2**exp-th is given."""
    network, plain = [], []
    for clip in clips:
        given, new = clip[:: 2**exp], np.arange(len(clip)) % 2**exp > 0
        network.append(decibels(doubled(interpolator, given, exp)[new], clip[new]))
        plain.append(decibels(averaged(given, exp)[new], clip[new]))
    return Fidelity(float(np.mean(network)), float(np.mean(plain)))
