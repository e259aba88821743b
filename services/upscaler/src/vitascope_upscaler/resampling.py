"""Resizing by cubic convolution, row by row: any part of the result is exactly what it is in the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SHARPNESS = -0.75
"""The free parameter of the kernel, as in PyTorch's bicubic interpolation."""

_TAPS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """One direction of a resize: which source lines each line of the result is made of.

    Pixels are areas, and lines beyond the edge repeat it. Without antialiasing, as the network's authors resize: four
    lines are read however much is reduced.
    """

    before: int
    after: int
    lines: Tensor
    """int64 (after, 4)."""
    weights: Tensor
    """float32 (after, 4)."""

    @property
    def same(self) -> bool:
        return self.before == self.after

    def resized(self, x: Tensor, axis: int, begin: int, end: int, offset: int) -> Tensor:
        """Return lines ``begin`` to ``end`` of the result; ``x`` holds the source lines from ``offset`` on."""
        if self.same:
            return x.narrow(axis, begin - offset, end - begin)
        shape = [-1 if each == axis else 1 for each in range(x.ndim)]
        lines, weights = self.lines[begin:end] - offset, self.weights[begin:end]
        made = x.index_select(axis, lines[:, 0]).mul_(weights[:, 0].view(shape))
        for tap in range(1, _TAPS):
            made.addcmul_(x.index_select(axis, lines[:, tap]), weights[:, tap].view(shape))
        return made

    def needed(self, begin: int, end: int) -> tuple[int, int]:
        """Return the source lines that lines ``begin`` to ``end`` of the result are made of."""
        if self.same:
            return begin, end
        return _place(begin, self.before, self.after)[0], _place(end - 1, self.before, self.after)[-1] + 1


class Resampler:
    """Resizes from one size to another.

    Args:
        before: Rows and columns of the source.
        after: Rows and columns of the result.
        device: Where it runs.
    """

    def __init__(self, before: tuple[int, int], after: tuple[int, int], device: torch.device) -> None:
        self._rows, self._columns = (_axis(*sizes, device) for sizes in zip(before, after, strict=True))

    def needed(self, begin: int, end: int) -> tuple[int, int]:
        """Return the first source row, and the one behind the last, that a part of the result is made of."""
        return self._rows.needed(begin, end)

    def resized(self, x: Tensor, begin: int, end: int, offset: int) -> Tensor:
        """Return rows ``begin`` to ``end`` of the result.

        Args:
            x: float32 (N, C, rows, W): at least the source rows that `needed` says; what is beyond the source on the
                right or below is not read.
            begin: First row of the result.
            end: The row behind the last.
            offset: Source row that is the first of ``x``.
        """
        return self._columns.resized(self._rows.resized(x, 2, begin, end, offset), 3, 0, self._columns.after, 0)


def _axis(before: int, after: int, device: torch.device) -> _Axis:
    if before == after:
        none = torch.empty(0, device=device)
        return _Axis(before, after, none, none)
    lines = torch.tensor([_place(line, before, after) for line in range(after)], device=device)
    weights = torch.tensor([_weights(line, before, after) for line in range(after)], device=device)
    return _Axis(before, after, lines, weights)


def _centre(line: int, before: int, after: int) -> tuple[int, float]:
    # Whole numbers first: the same line is the same, however large the picture.
    whole, rest = divmod((2 * line + 1) * before - after, 2 * after)
    return whole, rest / (2 * after)


def _place(line: int, before: int, after: int) -> list[int]:
    whole, _ = _centre(line, before, after)
    return [min(max(whole + tap, 0), before - 1) for tap in range(-1, 3)]


def _weights(line: int, before: int, after: int) -> list[float]:
    _, rest = _centre(line, before, after)
    return [_kernel(abs(rest - tap)) for tap in range(-1, 3)]


def _kernel(distance: float) -> float:
    """Return the weight of a line at a distance of less than two lines."""
    a, x = _SHARPNESS, distance
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((x - 5) * x + 8) * x * a - 4 * a
