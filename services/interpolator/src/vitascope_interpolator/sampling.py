"""Resizing and sampling of frames, in float32, with the shortcuts that powers of two allow."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

_KEPT_GRIDS = 16
"""A size of frames needs up to four."""


def resized(x: Tensor, factor: float) -> Tensor:
    """Return (N, C, H, W) at ``factor`` times the size, bilinear, pixels as areas."""
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def middles(x: Tensor, factor: float) -> Tensor:
    """Return the pixels that reducing by ``factor``, a power of two, reads: of every square the middle 2 x 2."""
    if factor <= 2:
        return x
    step = int(factor)
    count, channels, height, width = x.shape
    squares = x.reshape(count, channels, height // step, step, width // step, step)
    near = slice(step // 2 - 1, step // 2 + 1)
    return squares[:, :, :, near, :, near].reshape(count, channels, height // step * 2, width // step * 2)


def reduced(x: Tensor, factor: float) -> Tensor:
    """Return what `middles` left over at 1 / ``factor`` of the original size."""
    return F.avg_pool2d(x, 2) if factor >= 2 else resized(x, 1 / factor)


class _Shape(NamedTuple):
    height: int
    width: int
    factor: float
    device: torch.device


class Sampler:
    """Fetches pixels from where a flow points. Keeps the grids that it samples by; not for two threads at once."""

    def __init__(self) -> None:
        self._grids: OrderedDict[_Shape, tuple[Tensor, Tensor]] = OrderedDict()

    def __call__(self, image: Tensor, flow: Tensor, factor: float = 1.0) -> Tensor:
        """Return the image's pixels at each place plus its flow; places outside take the border's.

        Args:
            image: float32 (N, C, H, W).
            flow: float32 (N, 2, h, w): x and y in pixels of the image, at all places or at the `middles` of ``factor``.
            factor: See ``flow``.

        Returns:
            float32 (N, C, h, w).
        """
        height, width = image.shape[2:]
        # Up to 2 nothing is left out: one grid for all of these.
        grid, pixel = self._grid(_Shape(height, width, max(2.0, factor), image.device))
        places = torch.addcmul(grid, flow.permute(0, 2, 3, 1), pixel)
        return F.grid_sample(image, places, "bilinear", "border", align_corners=True)

    def _grid(self, shape: _Shape) -> tuple[Tensor, Tensor]:
        """Return where pixels lie, from -1 (first pixel's centre) to 1 (last one's), and how far one is in that."""
        if shape not in self._grids:
            self._grids[shape] = _grid(shape)
            if len(self._grids) > _KEPT_GRIDS:
                self._grids.popitem(last=False)
        self._grids.move_to_end(shape)
        return self._grids[shape]


def _grid(shape: _Shape) -> tuple[Tensor, Tensor]:
    across = torch.linspace(-1, 1, shape.width, device=shape.device)
    down = torch.linspace(-1, 1, shape.height, device=shape.device)
    both = torch.stack(torch.meshgrid(across, down, indexing="xy"))[None]
    pixel = torch.tensor((2 / (shape.width - 1), 2 / (shape.height - 1)), device=shape.device)
    return middles(both, shape.factor).permute(0, 2, 3, 1).contiguous(), pixel
