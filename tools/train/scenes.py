"""What the demonstration video model knows: a shape of one colour that moves on a background, and how that is said."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from tools.train.drawings import SHAPES, Layer, View, background, paint

SIDE = 64
FRAMES = 17
FPS = 8

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (218, 42, 42),
    "orange": (244, 136, 28),
    "yellow": (246, 212, 58),
    "green": (38, 164, 72),
    "blue": (46, 92, 218),
    "purple": (146, 58, 186),
    "white": (244, 244, 244),
    "black": (22, 22, 22),
}
"""The colours of objects and backgrounds: sRGB, 0..255."""

MOTIONS: dict[str, tuple[float, float, float]] = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "up": (0, -1, 0),
    "down": (0, 1, 0),
    "grow": (0, 0, 1),
    "shrink": (0, 0, -1),
    "still": (0, 0, 0),
}
"""The motions: along x, along y, in size."""

KNOWN_SHAPES = SHAPES[:4]

_REACH = 1.2
"""How far the shapes' farthest corners are from their centres, in radii."""

_SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "ball"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
}
_COLOUR_WORDS = {"purple": ("purple", "purple", "violet")}
_MOTION_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    way: ((f"moves {way}", f"moving {way}"), (f"moves {to}", f"moving {to}"), (f"slides {to}", f"sliding {to}"))
    for way, to in {"right": "to the right", "left": "to the left", "up": "upwards", "down": "downwards"}.items()
} | {
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "still": (("stands still", "standing still"), ("does not move", "that does not move")),
}
_PHRASES = (
    "a {colour} {shape} {moves} on a {background} background",
    "a {colour} {shape} {moves} on a {background} background",
    "a {colour} {shape} {moving} on a {background} background",
    "the {colour} {shape} {moves} in front of a {background} background",
    "{background} background, a {colour} {shape} {moves}",
    "a {colour} {shape} on a {background} background {moves}",
    "{colour} {shape} {moving}, {background} background",
)
_SILENT_ON_MOTION = ("a {colour} {shape} on a {background} background", "{background} background, a {colour} {shape}")
_SILENT_ON_BACKGROUND = ("a {colour} {shape} {moves}", "a {colour} {shape} {moving}")


@dataclass(frozen=True, slots=True, order=True)
class Combination:
    """What a caption names: keys of `KNOWN_SHAPES`, `COLOURS`, `MOTIONS` and `COLOURS` again."""

    shape: str
    colour: str
    motion: str
    background: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A combination at a certain place. Lengths are shares of the side.

    Attributes:
        what: The combination.
        middle: Centre of the object in the middle of the clip: x, y.
        radius: Its radius then.
        travel: How far it moves in the clip; when it changes size, how much the radius changes.
        stripes: Stripes on the object; 0 for none.
    """

    what: Combination
    middle: tuple[float, float]
    radius: float
    travel: float
    stripes: float = 0.0

    def pose(self, time: float) -> tuple[float, float, float]:
        """Return x, y and radius at a time from 0 (first frame) to 1 (last frame)."""
        along_x, along_y, growth = MOTIONS[self.what.motion]
        way = self.travel * (time - 0.5)
        return self.middle[0] + along_x * way, self.middle[1] + along_y * way, self.radius + growth * way

    def striped(self) -> Scene:
        """Return the same in the style that the demonstration LoRA knows."""
        return replace(self, stripes=3.0)


def combinations() -> list[Combination]:
    """Return everything that a caption can say, sorted; no object has its background's colour."""
    every = itertools.product(KNOWN_SHAPES, COLOURS, MOTIONS, COLOURS)
    return sorted(Combination(*each) for each in every if each[1] != each[3])


def split(held_out: int = 200) -> tuple[list[Combination], list[Combination]]:
    """Return the combinations that are trained on and those that never are, always the same ones."""
    every = combinations()
    Random(20261121).shuffle(every)
    return every[held_out:], every[:held_out]


def scene(what: Combination, random: Random) -> Scene:
    """Return the combination at a random place, inside the picture at all times."""
    moves = MOTIONS[what.motion]
    if moves[2]:
        radius, travel = random.uniform(0.20, 0.24), random.uniform(0.14, 0.19)
        largest = radius + travel / 2
    else:
        radius, travel = random.uniform(0.19, 0.25), random.uniform(0.28, 0.36)
        largest = radius
    middle = []
    for share in moves[:2]:
        room = 0.5 - min(0.49, _REACH * largest + abs(share) * travel / 2)
        middle.append(0.5 + random.uniform(-room, room))
    return Scene(what, (middle[0], middle[1]), radius, travel)


def caption(what: Combination, random: Random, *, still: bool = False, whole: bool = False) -> str:
    """Return one of the ways in which the combination is said.

    Args:
        what: The combination.
        random: Which way.
        still: It is for a single picture: mostly without a motion.
        whole: It is to name everything.
    """
    fate = random.random()
    phrases: tuple[str, ...]
    if whole:
        phrases = _PHRASES
    elif fate < (0.7 if still else 0.06):
        phrases = _SILENT_ON_MOTION
    elif fate > 0.95:
        phrases = _SILENT_ON_BACKGROUND
    else:
        phrases = _PHRASES
    moves, moving = random.choice(_MOTION_WORDS[what.motion])
    text = random.choice(phrases).format(
        colour=random.choice(_COLOUR_WORDS.get(what.colour, (what.colour,))),
        shape=random.choice(_SHAPE_WORDS[what.shape]),
        moves=moves,
        moving=moving,
        background=random.choice(_COLOUR_WORDS.get(what.background, (what.background,))),
    )
    return text.replace("a orange", "an orange")


def words() -> list[str]:
    """Return every word of every caption, sorted."""
    texts = [*_PHRASES, *_SILENT_ON_MOTION, *_SILENT_ON_BACKGROUND, *COLOURS]
    for ways in (*_SHAPE_WORDS.values(), *_COLOUR_WORDS.values(), *itertools.chain(*_MOTION_WORDS.values())):
        texts += ways
    plain = " ".join(texts).replace(",", " ").split()
    return sorted({word for word in plain if word.isalpha()} | {"an"})


def draw(scenes: Sequence[Scene], times: Sequence[float], view: View | None = None) -> Tensor:
    """Return the scenes as clips, float32 (scenes, 3, times, H, W) in 0..1.

    Args:
        scenes: What to draw.
        times: The moments, from 0 to 1.
        view: Size and part of the picture; None for all of it at `SIDE` x `SIDE`.
    """
    view = view or View(SIDE)
    each = [(one, one.pose(time)) for one in scenes for time in times]
    poses = torch.tensor([pose for _, pose in each])
    layer = Layer(
        shape=torch.tensor([SHAPES.index(one.what.shape) for one, _ in each]),
        centre=poses[:, :2],
        radius=poses[:, 2],
        angle=torch.zeros(len(each)),
        colour=_rgb([one.what.colour for one, _ in each]),
        second=_rgb([_stripe_colour(one.what) for one, _ in each]),
        stripes=torch.tensor([one.stripes for one, _ in each]),
    )
    pictures = paint(background(_rgb([one.what.background for one, _ in each]), view), layer, view)
    return pictures.reshape(len(scenes), len(times), *pictures.shape[1:]).transpose(1, 2)


def moments(count: int = FRAMES) -> list[float]:
    """Return the times of a clip's frames."""
    return [place / max(count - 1, 1) for place in range(count)]


def _stripe_colour(what: Combination) -> str:
    return next(colour for colour in ("white", "black", "yellow") if colour not in (what.colour, what.background))


def _rgb(names: Sequence[str]) -> Tensor:
    return torch.tensor([COLOURS[name] for name in names], dtype=torch.float32) / 255
