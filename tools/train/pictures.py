"""Random moving drawings, richer than the captions can say, that networks for post-processing learn from.

Everything is a function of place and time, so the true frame at any moment is known at any size, and so is where every
pixel of it was before and will be after.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from tools.train import scenes
from tools.train.drawings import SHAPES, Layer, View, paint

HELD_OUT_SEED = 424242
"""Of the drawings that are measured on and never trained on."""

MIDDLE = 0.5
"""The moment halfway between the first frame of a pair, 0, and the second, 1."""

_LIKELY = (1.0, 0.7, 0.5, 0.3)
"""How likely each object of a picture is there; a stroke may come on top."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """What N surfaces look like: two colours that alternate along a direction, as a wave or as stripes.

    Attributes:
        first, second: float32 (N, 3) in 0..1.
        frequency: float32 (N, 2): periods along x and y in a unit of the surface; 0 for one colour.
        phase: float32 (N,): in periods.
        hard: bool (N,): stripes with edges instead of a wave.
    """

    first: Tensor
    second: Tensor
    frequency: Tensor
    phase: Tensor
    hard: Tensor

    def at(self, x: Tensor, y: Tensor, pixel: Tensor) -> Tensor:
        """Return colours, float32 (N, 3, H, W).

        Args:
            x: float32 (N, H, W): places on the surface.
            y: As ``x``.
            pixel: float32 (N,): side of a picture's pixel on it.
        """
        along, down = self.frequency[:, :, None, None].unbind(1)
        periods = x * along + y * down + self.phase[:, None, None]
        from_edge = (torch.remainder(periods, 1) - 0.5).abs() - 0.25
        width = (self.frequency.norm(dim=1) * pixel).clamp_min(1e-6)[:, None, None]
        stripes = (0.5 - from_edge / width).clamp_(0, 1)
        waves = 0.5 + 0.5 * torch.sin(2 * math.pi * periods)
        share = torch.where(self.hard[:, None, None], stripes, waves).unsqueeze(1)
        return torch.lerp(self.first[:, :, None, None], self.second[:, :, None, None], share)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How N surfaces lie and move. Lengths are shares of the picture's side, times those between two frames.

    Attributes:
        centre: float32 (N, 2): x, y at `MIDDLE`.
        velocity, acceleration: float32 (N, 2).
        radius: float32 (N,): at `MIDDLE`.
        growth: float32 (N,): natural logarithm of what the radius is multiplied by.
        angle: float32 (N,): radians, clockwise, at `MIDDLE`.
        spin: float32 (N,): radians.
    """

    centre: Tensor
    velocity: Tensor
    acceleration: Tensor
    radius: Tensor
    growth: Tensor
    angle: Tensor
    spin: Tensor

    def pose(self, time: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return centre (N, 2), radius (N,) and angle (N,) at a time."""
        since = time - MIDDLE
        centre = self.centre + self.velocity * since + self.acceleration * (since * since / 2)
        return centre, self.radius * torch.exp(self.growth * since), self.angle + self.spin * since

    def surface(self, time: float, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return where on the surfaces the picture's places (H, W) or (N, H, W) are: float32 (N, H, W) each."""
        centre, radius, angle = (each[..., None, None] for each in self.pose(time))
        dx, dy = (x - centre[:, 0]) / radius, (y - centre[:, 1]) / radius
        cos, sin = torch.cos(angle), torch.sin(angle)
        return dx * cos + dy * sin, dy * cos - dx * sin

    def picture(self, time: float, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return where in the picture places (N, H, W) of the surfaces are, the inverse of `surface`."""
        centre, radius, angle = (each[..., None, None] for each in self.pose(time))
        cos, sin = torch.cos(angle), torch.sin(angle)
        return centre[:, 0] + radius * (u * cos - v * sin), centre[:, 1] + radius * (v * cos + u * sin)


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """An object in each of N pictures.

    Attributes:
        shape: int64 (N,): numbers in `SHAPES`; None for strokes with round ends, along the surface's x.
        thickness: float32 (N,): of a stroke, in radii.
        there: float32 (N,): 1 where the picture has the object, else 0.
        course: How it moves.
        pattern: What its surface looks like, in radii.
    """

    shape: Tensor | None
    thickness: Tensor
    there: Tensor
    course: Course
    pattern: Pattern

    def cover(self, time: float, view: View) -> Tensor:
        """Return how much of each pixel it covers, float32 (N, 1, H, W)."""
        centre, radius, angle = self.course.pose(time)
        if self.shape is None:
            u, v = self.course.surface(time, *view.grid())
            thick = self.thickness[:, None, None]
            distance = torch.hypot((u.abs() - 1 + thick).clamp_min(0), v) - thick
            cover = (0.5 - distance * (view.side * radius)[:, None, None]).clamp_(0, 1).unsqueeze(1)
        else:
            white, none = torch.ones(len(centre), 1), torch.zeros(len(centre))
            layer = Layer(self.shape, centre, radius, angle, white, white, none)
            cover = paint(torch.zeros(len(centre), 1, *view.grid()[0].shape), layer, view)
        return cover * self.there[:, None, None, None]


@dataclass(frozen=True, slots=True, eq=False)
class Movies:
    """N moving drawings.

    Attributes:
        backdrop: Course and pattern of what is behind everything; its surface has the picture's unit.
        things: Objects, the ones behind first.
    """

    backdrop: tuple[Course, Pattern]
    things: list[Thing]

    def frame(self, time: float, view: View) -> Tensor:
        """Return the pictures at a time, float32 (N, 3, H, W) in 0..1."""
        x, y = view.grid()
        course, pattern = self.backdrop
        canvas = pattern.at(*course.surface(time, x, y), 1 / (view.side * course.pose(time)[1]))
        for thing in self.things:
            pixel = 1 / (view.side * thing.course.pose(time)[1])
            colours = thing.pattern.at(*thing.course.surface(time, x, y), pixel)
            canvas = canvas + thing.cover(time, view) * (colours - canvas)
        return canvas

    def flow(self, time: float, to: float, view: View) -> Tensor:
        """Return how far what is seen at a time is at another, float32 (N, 2, H, W): x and y in pixels."""
        x, y = view.grid()
        course, _ = self.backdrop
        flow = _displacement(course, time, to, x, y)
        for thing in self.things:
            seen = thing.cover(time, view) > 0.5
            flow = torch.where(seen, _displacement(thing.course, time, to, x, y), flow)
        return flow * view.side


def movies(count: int, side: int, generator: torch.Generator) -> Movies:
    """Return random drawings.

    Args:
        count: How many.
        side: Of the pictures, in pixels: how far things move between two frames is drawn in pixels.
        generator: Where everything random is drawn from.
    """
    draw = _Draw(count, side, generator)
    panned = draw.where(0.25, draw.velocity(6.0), torch.zeros(count, 2))
    zero, one = torch.zeros(count), torch.ones(count)
    behind = Course(torch.zeros(count, 2), panned, torch.zeros(count, 2), one, zero, zero, zero)
    things = [Thing(draw.shape(), zero, draw.bit(share), draw.course(), draw.pattern(1.6)) for share in _LIKELY]
    things.append(Thing(None, draw.uniform(0.03, 0.2), draw.bit(0.4), draw.course(), draw.pattern(1.0)))
    return Movies((behind, draw.pattern(7.0)), things)


def captioned(count: int, random: Random) -> list[scenes.Scene]:
    """Return scenes of combinations that are trained on, some of them striped."""
    known, _ = scenes.split()
    drawn = [scenes.scene(random.choice(known), random) for _ in range(count)]
    return [each.striped() if random.random() < 0.3 else each for each in drawn]


def held_out(count: int, motions: Collection[str] = tuple(scenes.MOTIONS)) -> list[scenes.Scene]:
    """Return scenes of combinations that are never trained on, always the same ones for the same motions.

    Every fourth is striped.
    """
    random = Random(HELD_OUT_SEED)
    _, never = scenes.split()
    kinds = [each for each in never if each.motion in motions]
    drawn = [scenes.scene(random.choice(kinds), random) for _ in range(count)]
    return [each.striped() if number % 4 == 3 else each for number, each in enumerate(drawn)]


def softened(frames: list[Tensor], generator: torch.Generator, share: float = 0.3) -> list[Tensor]:
    """Return frames (N, 3, H, W) in which some pictures are blurred, in all frames alike: as a model may draw them."""
    sigma = 0.3 + 0.6 * torch.rand(len(frames[0]), 1, generator=generator)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / sigma) ** 2)
    identity = torch.tensor([0.0, 0, 1, 0, 0])
    taps = torch.where(torch.rand(len(frames[0]), 1, generator=generator) < share, taps, identity)
    taps = taps / taps.sum(1, keepdim=True)
    kernels = (taps[:, :, None] * taps[:, None, :]).repeat_interleave(3, 0)[:, None]
    return [_filtered(each, kernels) for each in frames]


def _filtered(frames: Tensor, kernels: Tensor) -> Tensor:
    padded = F.pad(frames.flatten(0, 1)[None], (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, kernels, groups=len(kernels)).view_as(frames)


def _displacement(course: Course, time: float, to: float, x: Tensor, y: Tensor) -> Tensor:
    there_x, there_y = course.picture(to, *course.surface(time, x, y))
    return torch.stack((there_x - x, there_y - y), 1)


class _Draw:
    """Random values for N pictures."""

    def __init__(self, count: int, side: int, generator: torch.Generator) -> None:
        self._count = count
        self._side = side
        self._generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self._count, *shape, generator=self._generator)

    def bit(self, share: float) -> Tensor:
        """Return float32 (N,): 1 with the given probability, else 0."""
        return (self.uniform(0, 1) < share).float()

    def where(self, share: float, value: Tensor, other: Tensor) -> Tensor:
        chosen = (self.uniform(0, 1) < share).view(-1, *[1] * (value.ndim - 1))
        return torch.where(chosen, value, other)

    def shape(self) -> Tensor:
        return torch.randint(len(SHAPES), (self._count,), generator=self._generator)

    def velocity(self, most: float) -> Tensor:
        """Return shares of the side, (N, 2): from 0.3 to ``most`` pixels, small ones as often as large ones."""
        pixels = torch.exp(self.uniform(math.log(0.3), math.log(most)))
        way = self.uniform(0, 2 * math.pi)
        return torch.stack((pixels * torch.cos(way), pixels * torch.sin(way)), 1) / self._side

    def course(self) -> Course:
        still, zero = torch.zeros(self._count, 2), torch.zeros(self._count)
        velocity = self.where(0.85, self.where(0.07, self.velocity(16.0), self.velocity(8.0)), still)
        bend = self.uniform(-0.25, 0.25, 1) * velocity.norm(dim=1, keepdim=True) * self.uniform(-1, 1, 2)
        return Course(
            centre=self.uniform(0.1, 0.9, 2),
            velocity=velocity,
            acceleration=self.where(0.1, bend, still),
            radius=torch.exp(self.uniform(math.log(0.05), math.log(0.36))),
            growth=self.where(0.4, self.uniform(-0.15, 0.15), zero),
            angle=self.where(0.6, self.uniform(0, 2 * math.pi), zero),
            spin=self.where(0.35, self.uniform(-0.35, 0.35), zero),
        )

    def pattern(self, most: float) -> Pattern:
        """Return patterns of up to ``most`` periods in a unit: half of one colour, the others graded or striped."""
        first = self.uniform(0, 1, 3)
        near = (first + self.uniform(-0.3, 0.3, 3)).clamp_(0, 1)
        periods, way = torch.exp(self.uniform(math.log(0.15), math.log(most))), self.uniform(0, 2 * math.pi)
        frequency = torch.stack((periods * torch.cos(way), periods * torch.sin(way)), 1)
        return Pattern(
            first=first,
            second=self.where(0.5, near, self.uniform(0, 1, 3)),
            frequency=self.where(0.5, frequency, torch.zeros(self._count, 2)),
            phase=self.uniform(0, 1),
            hard=self.uniform(0, 1) < 0.4,
        )
