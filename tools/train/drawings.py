"""Drawings whose every pixel is known at every size and at every moment: what the demonstration models learn from.

A shape is a signed distance; covering a pixel by it is a clamp of that distance, so edges are smooth at any resolution
and a position may lie between pixels and between frames.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
"""What can be drawn. The captions know the first four."""

_TABLE = 192
_REACH = 1.6
"""Half the side of the square around a shape's centre in which its distance is tabled, in radii."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One object in each of N pictures. Lengths are shares of the picture's side, the origin is its upper left corner.

    Attributes:
        shape: int64 (N,): numbers in `SHAPES`.
        centre: float32 (N, 2): x, y.
        radius: float32 (N,): of the circle around it.
        angle: float32 (N,): radians, clockwise.
        colour: float32 (N, 3) in 0..1.
        second: float32 (N, 3) in 0..1: colour of the stripes.
        stripes: float32 (N,): stripes across the object; 0 for none.
    """

    shape: Tensor
    centre: Tensor
    radius: Tensor
    angle: Tensor
    colour: Tensor
    second: Tensor
    stripes: Tensor


@dataclass(frozen=True, slots=True)
class View:
    """The part of a picture that is drawn, in pixels.

    Attributes:
        side: The whole picture's side.
        left, top: Where the part begins.
        width, height: Its size; None for the rest of the picture.
    """

    side: int
    left: int = 0
    top: int = 0
    width: int | None = None
    height: int | None = None

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return the centres of its pixels as float32 (H, W): x and y in shares of the side."""
        width, height = self.width or self.side - self.left, self.height or self.side - self.top
        x = (torch.arange(width) + self.left + 0.5) / self.side
        y = (torch.arange(height) + self.top + 0.5) / self.side
        grid = torch.meshgrid(y, x, indexing="ij")
        return grid[1], grid[0]


def paint(canvas: Tensor, layer: Layer, view: View) -> Tensor:
    """Return pictures with an object on each.

    Args:
        canvas: float32 (N, 3, H, W) in 0..1: what is there already; may be expanded.
        layer: The objects.
        view: Which part of the picture the canvas is.
    """
    x, y = view.grid()
    radius = layer.radius[:, None, None]
    dx = (x - layer.centre[:, 0, None, None]) / radius
    dy = (y - layer.centre[:, 1, None, None]) / radius
    cos, sin = torch.cos(layer.angle)[:, None, None], torch.sin(layer.angle)[:, None, None]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    distance = _distance(layer.shape, u, v)
    pixel = 1 / (view.side * radius)
    cover = (0.5 - distance / pixel).clamp_(0, 1).unsqueeze(1)
    paint_ = layer.colour[:, :, None, None]
    if bool((layer.stripes > 0).any()):
        paint_ = torch.lerp(paint_, layer.second[:, :, None, None], _stripe_cover(layer, u, v, pixel).unsqueeze(1))
    return canvas + cover * (paint_ - canvas)


def background(colour: Tensor, view: View) -> Tensor:
    """Return float32 (N, 3, H, W) of one colour each, (N, 3) in 0..1."""
    x, _ = view.grid()
    return colour[:, :, None, None].expand(-1, -1, *x.shape)


def _stripe_cover(layer: Layer, u: Tensor, v: Tensor, pixel: Tensor) -> Tensor:
    """Return how much of each pixel the stripes, which run up to the right, cover."""
    across = (u + v) * math.sqrt(0.5)
    count = layer.stripes.clamp_min(1)[:, None, None]
    wave = across * count  # one stripe and one gap for each 2
    inside = (torch.remainder(wave, 2) - 1).abs() - 0.5
    cover = (0.5 - inside / (count * pixel)).clamp_(0, 1)
    return torch.where(layer.stripes[:, None, None] > 0, cover, 0)


def _distance(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return signed distances, negative inside, read from the tables of the shapes, for (N, H, W) places in radii."""
    tables = _tables()[shape].unsqueeze(1)
    places = torch.stack((u, v), -1) / _REACH
    return F.grid_sample(tables, places, mode="bilinear", padding_mode="border", align_corners=False).squeeze(1)


@functools.cache
def _tables() -> Tensor:
    """Return float32 (shapes, _TABLE, _TABLE): the distance around each shape of radius 1."""
    line = ((torch.arange(_TABLE) + 0.5) / _TABLE * 2 - 1) * _REACH
    y, x = torch.meshgrid(line, line, indexing="ij")
    from_centre = torch.hypot(x, y)
    square = [(0.86, 0.86), (-0.86, 0.86), (-0.86, -0.86), (0.86, -0.86)]
    spikes = [_on_circle(turn / 10, 1.2 if turn % 2 == 0 else 0.46) for turn in range(10)]
    arm = 0.34
    right = [(arm, -arm), (1.0, -arm), (1.0, arm)]  # the next quarter begins where this one would end
    cross = [corner for quarter in range(4) for corner in (_turned(p, quarter) for p in right)]
    return torch.stack(
        (
            from_centre - 0.95,
            _polygon(square, x, y),
            _polygon([_on_circle(turn / 3, 1.1) for turn in range(3)], x, y),
            _polygon(spikes, x, y),
            (from_centre - 0.74).abs() - 0.24,
            _polygon(cross, x, y),
        )
    )


def _on_circle(turn: float, radius: float) -> tuple[float, float]:
    """Return a corner, the first one at the top and the others clockwise."""
    angle = 2 * math.pi * turn
    return radius * math.sin(angle), -radius * math.cos(angle)


def _turned(corner: tuple[float, float], quarters: int) -> tuple[float, float]:
    for _ in range(quarters):
        corner = (-corner[1], corner[0])
    return corner


def _polygon(corners: list[tuple[float, float]], x: Tensor, y: Tensor) -> Tensor:
    """Return the signed distance to a polygon: that to its nearest edge, negative where a ray meets an odd number."""
    nearest = torch.full_like(x, math.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        along = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, torch.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            crosses = ((ay > y) != (by > y)) & (x < ax + (y - ay) / ey * ex)
            inside ^= crosses
    return torch.where(inside, -nearest, nearest)
