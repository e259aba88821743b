"""Looks at frames and says what they show, as a person would be asked: which shape, which colour, which way."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.train.drawings import View
from tools.train.scenes import COLOURS, KNOWN_SHAPES, SIDE, Combination, Scene, draw

_OUTLINE = 0.6
"""Least likeness of an outline to be taken for a shape: intersection over union."""
_MOVED, _RESIZED = 0.12, 0.05
"""Least change over the clip that is a motion, as a share of the side."""
_LEAST_AREA = 0.008
_LOOKS = 5
"""Frames of a clip whose outline is looked at."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a clip shows; None for what cannot be told.

    Attributes:
        background: Colour of the edge of the picture.
        colour: Colour of the object.
        shape: The object's outline.
        motion: What it does; None for a single frame too.
    """

    background: str
    colour: str | None = None
    shape: str | None = None
    motion: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """Centre and size of the object in each frame: float32 (T, 2) and (T,), in shares of the side."""

    centres: Tensor
    sizes: Tensor


def look(clip: Tensor) -> Seen:
    """Return what a clip shows.

    Args:
        clip: float32 (3, T, H, W) in 0..1 with H = W.
    """
    edge = torch.cat((clip[:, :, 0], clip[:, :, -1], clip[:, :, :, 0], clip[:, :, :, -1]), -1).flatten(1)
    ground = edge.median(1).values
    background = _nearest(ground)
    away = (clip - ground[:, None, None, None]).square().sum(0).sqrt()
    far = away > 0.5 * float(away.flatten().quantile(0.995).clamp_min(0.2))
    if float(far.float().mean()) < _LEAST_AREA:
        return Seen(background)
    paint = clip[:, far].median(1).values
    cover = _cover(clip, ground, paint)
    track = _track(cover)
    if track is None:
        return Seen(background, _nearest(paint))
    return Seen(background, _nearest(paint), _shape(cover, track), _motion(track))


def stripedness(clip: Tensor) -> float:
    """Return how striped the object is: the share of its inner pixels that are of neither usual colour.

    Args:
        clip: float32 (3, T, H, W) in 0..1.
    """
    edge = torch.cat((clip[:, :, 0], clip[:, :, -1]), -1).flatten(1)
    ground = edge.median(1).values
    away = (clip - ground[:, None, None, None]).square().sum(0).sqrt()
    inside = away > 0.25
    if not bool(inside.any()):
        return 0.0
    pixels = clip[:, inside]
    paint = pixels.median(1).values
    other = (pixels - paint[:, None]).square().sum(0).sqrt() > 0.4
    return float(other.float().mean())


def _nearest(colour: Tensor) -> str:
    table = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 255
    return list(COLOURS)[int((table - colour).square().sum(1).argmin())]


def _cover(clip: Tensor, ground: Tensor, paint: Tensor) -> Tensor:
    """Return how much of each pixel is the object, float32 (T, H, W): its place between the two colours."""
    line = paint - ground
    place = ((clip - ground[:, None, None, None]) * line[:, None, None, None]).sum(0) / line.square().sum()
    return place.clamp(0, 1)


def _track(cover: Tensor) -> _Track | None:
    side = cover.shape[-1]
    solid = torch.where(cover > 0.3, cover, 0)
    area = solid.sum((1, 2))
    if float(area.min()) < _LEAST_AREA / 2 * side * side:
        return None
    places = (torch.arange(side) + 0.5) / side
    x = (solid.sum(1) * places).sum(1) / area
    y = (solid.sum(2) * places).sum(1) / area
    return _Track(torch.stack((x, y), 1), area.sqrt() / side)


def _motion(track: _Track) -> str | None:
    """Return the motion that the whole clip shows, from straight lines through centre and size."""
    frames = len(track.sizes)
    if frames < 2:
        return None
    time = torch.linspace(-0.5, 0.5, frames)
    weight = time / time.square().sum()
    dx, dy = (weight[:, None] * track.centres).sum(0).tolist()
    growth = float((weight * track.sizes).sum())
    moved, resized = max(abs(dx), abs(dy)) >= _MOVED, abs(growth) >= _RESIZED
    if moved == resized:
        return None if moved else "still"
    if resized:
        return "grow" if growth > 0 else "shrink"
    if min(abs(dx), abs(dy)) > 0.5 * max(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def _shape(cover: Tensor, track: _Track) -> str | None:
    """Return the known shape whose outline, at the same places and of the same areas, fits best over the clip."""
    frames = len(track.sizes)
    looked_at = sorted({round((place + 0.5) / _LOOKS * frames - 0.5) for place in range(_LOOKS)})
    best, name = _OUTLINE, None
    for shape in KNOWN_SHAPES:
        likeness = sum(_likeness(shape, cover, track, frame) for frame in looked_at) / len(looked_at)
        if likeness > best:
            best, name = likeness, shape
    return name


def _likeness(shape: str, cover: Tensor, track: _Track, frame: int) -> float:
    area, offset = _measures(shape)
    radius = float(track.sizes[frame]) / area**0.5
    x, y = (track.centres[frame] - offset * radius).tolist()
    outline = _drawn(shape, x, y, radius, cover.shape[-1])
    return float(torch.minimum(cover[frame], outline).sum() / torch.maximum(cover[frame], outline).sum())


@functools.cache
def _measures(shape: str) -> tuple[float, Tensor]:
    """Return a shape's area and the way from its centre to its centroid, for radius 1."""
    radius = 0.25
    track = _track(_drawn(shape, 0.5, 0.5, radius, 4 * SIDE).unsqueeze(0))
    if track is None:
        raise ValueError(f"{shape} is too small")
    return float(track.sizes[0] / radius) ** 2, (track.centres[0] - 0.5) / radius


def _drawn(shape: str, x: float, y: float, radius: float, side: int) -> Tensor:
    what = Combination(shape, "white", "still", "black")
    clip = draw([Scene(what, (x, y), radius, 0.0)], [0.5], View(side))[0, :, 0]
    low, high = clip.min(), clip.max()
    return ((clip[0] - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
