"""Which version of RIFE a checkpoint is of, told from the shapes of its tensors, for people whose file does not fit."""

from __future__ import annotations

from vitascope_weights.tensors import Shapes

_STAGES = 4
_WITHOUT_HEAD = 7
"""Inputs of the first stage where there are no features: two frames and the time."""

# By channels of a stage's output, inputs of the second stage and widths of the first four.
_KNOWN: dict[tuple[int, int, tuple[int, ...]], str] = {
    (24, 20, (192, 128, 96, 64)): "4.7 to 4.9",
    (24, 20, (128, 96, 64, 48)): "4.12 to 4.17 lite",
    (24, 28, (192, 128, 96, 64)): "4.10 to 4.19, 4.24 or 4.14.lite",
    (24, 28, (384, 192, 96, 48)): "4.20",
    (52, 36, (256, 192, 96, 48)): "4.21 to 4.23",
    (52, 28, (192, 128, 64, 32)): "4.22.lite",
}
# By the width of the fifth stage.
_FIVE_STAGES = {32: "4.25 or 4.26", 24: "4.25.lite"}


def likely_version(shapes: Shapes) -> str | None:
    """Return the version, or None if it is no RIFE 4 or one that is not known."""
    if not any(name.startswith("block0.") for name in shapes):
        return None
    widths = tuple(_size(shapes, f"block{stage}.conv0.1.0.weight", 0) for stage in range(_STAGES + 1))
    if widths[_STAGES]:
        return _FIVE_STAGES.get(widths[_STAGES])
    if not any(name.startswith("encode.") for name in shapes):
        return "4.0 to 4.6" if _size(shapes, "block0.conv0.0.0.weight", 1) == _WITHOUT_HEAD else None
    outputs = _size(shapes, "block0.lastconv.0.weight", 1)
    inputs = _size(shapes, "block1.conv0.0.0.weight", 1)
    return _KNOWN.get((outputs, inputs, widths[:_STAGES]))


def _size(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if len(shape) > axis else 0
