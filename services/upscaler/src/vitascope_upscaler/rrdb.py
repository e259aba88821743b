"""RRDBNet: the heavy network of Real-ESRGAN.

Source: Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018 (arXiv:1809.00219);
    "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021 (arXiv:2107.10833).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from vitascope_upscaler.architecture import DENSE, DENSE_BLOCKS, Rrdb
from vitascope_upscaler.layers import Convolution, Weights, leaky_into

_RESIDUAL = 0.2
"""Share of what a block adds to its input."""

_TAIL_HALO = 2
"""Rows of the trunk that the tail sees beyond its own: 1.25 with two doublings, 2 without any."""


class RrdbNetwork:
    """A loaded RRDBNet on its device. Not for two threads at once.

    The trunk needs the whole frame at once, since it sees far; the tail, which needs most memory, may run in strips.

    Args:
        architecture: Sizes of the network.
        weights: Every tensor that `Rrdb.shapes` names.
        device: Where it runs.
        dtype: Format of the convolutions.
    """

    def __init__(
        self, architecture: Rrdb, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.architecture = architecture
        self.device = device
        self.dtype = dtype
        placed = Weights(weights, device, dtype)
        self._first = placed.convolution("conv_first")
        self._blocks = [_block(placed, f"body.{number}") for number in range(architecture.blocks)]
        self._body = placed.convolution("conv_body")
        self._doublings = [placed.doubling(f"conv_up{number + 1}") for number in range(architecture.doublings)]
        self._fine = placed.convolution("conv_hr")
        self._last = placed.convolution("conv_last")

    @property
    def cell(self) -> int:
        """Pixels of the frame on a side of a cell of the trunk."""
        return self.architecture.unshuffle

    @property
    def factor(self) -> int:
        """Pixels of the output on a side of a cell of the trunk."""
        return 1 << self.architecture.doublings

    @property
    def body_halo(self) -> int:
        """Cells that the trunk sees beyond its own: one for each of its convolutions."""
        return DENSE * DENSE_BLOCKS * self.architecture.blocks + 2

    @property
    def tail_halo(self) -> int:
        """Cells that the tail sees beyond its own."""
        return _TAIL_HALO

    @property
    def body_bytes(self) -> int:
        """Memory of the trunk, for each cell.

        Held are the first features, the block's input and all that a dense block sees; a convolution makes its output
        beside them, and may copy its input.
        """
        wide, dense = self.architecture.features, self.architecture.dense_channels
        return self.dtype.itemsize * (3 * wide + 2 * dense)

    @property
    def held_bytes(self) -> int:
        """Memory of what the trunk hands to the tail, for each cell."""
        return self.dtype.itemsize * self.architecture.features

    @property
    def tail_bytes(self) -> int:
        """Memory of the tail, for each cell: two layers of the output's size, and the one that is being doubled."""
        return self.factor**2 * self.dtype.itemsize * self.architecture.features * 9 // 4

    @property
    def most_channels(self) -> tuple[int, int]:
        """Values of the largest tensor for each cell: in the trunk, in the tail."""
        return self.architecture.dense_channels, self.factor**2 * self.architecture.features

    def body(self, frames: Tensor) -> Tensor:
        """Return the features of whole frames.

        Args:
            frames: float32 (N, 3, H, W) in 0..1; sides are multiples of `cell`.

        Returns:
            (N, features, H / cell, W / cell) in the convolutions' format.
        """
        cells = F.pixel_unshuffle(frames, self.cell) if self.cell > 1 else frames
        first = self._first(cells.to(self.dtype, memory_format=torch.channels_last))
        wide, growth = self.architecture.features, self.architecture.growth
        size = (first.shape[0], self.architecture.dense_channels, *first.shape[2:])
        # All that a dense block sees lies side by side, so its convolutions read it without putting it together.
        seen = torch.empty(size, dtype=self.dtype, device=self.device, memory_format=torch.channels_last)
        own, x = seen[:, :wide], first.clone()
        for block in self._blocks:
            own.copy_(x)
            for *adding, last in block:
                for place, layer in enumerate(adding):
                    end = wide + place * growth
                    leaky_into(layer(seen[:, :end]), seen[:, end : end + growth])
                own.add_(last(seen))
            x.add_(own, alpha=_RESIDUAL)
        del seen, own
        return self._body(x).add_(first)

    def tail(self, features: Tensor) -> Tensor:
        """Return the enlarged colours of features, float32 (N, 3, factor * h, factor * w), not held in 0..1."""
        x = features
        for doubling in self._doublings:
            x = doubling(x)
        x = self._fine(x)
        x = leaky_into(x, x)
        return self._last(x).float()


def _block(weights: Weights, name: str) -> list[list[Convolution]]:
    """Return the convolutions of a block's dense blocks; the last of each is multiplied by the residual's share."""
    return [
        [
            weights.convolution(f"{name}.rdb{dense}.conv{place}", _RESIDUAL if place == DENSE else 1.0)
            for place in range(1, DENSE + 1)
        ]
        for dense in range(1, DENSE_BLOCKS + 1)
    ]
