"""What the upscaler needs of a network, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vitascope_upscaler.architecture import Architecture, Rrdb
from vitascope_upscaler.compact import CompactNetwork
from vitascope_upscaler.rrdb import RrdbNetwork


class Network(Protocol):
    """A network in two parts: a body, which sees far, and a tail, which sees some rows around its own.

    Both work on cells, squares of the frame's pixels. Zeros surround the frame; rows within a halo of a cut are not
    those of the whole frame, all others are.
    """

    @property
    def architecture(self) -> Architecture:
        """Sizes of the network."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def cell(self) -> int:
        """Pixels of the frame on a side of a cell."""

    @property
    def factor(self) -> int:
        """Pixels of the output on a side of a cell."""

    @property
    def body_halo(self) -> int:
        """Cells that the body sees beyond its own."""

    @property
    def tail_halo(self) -> int:
        """Cells that the tail sees beyond its own."""

    @property
    def body_bytes(self) -> int:
        """Memory of the body for each cell."""

    @property
    def held_bytes(self) -> int:
        """Memory of what the body hands to the tail, for each cell."""

    @property
    def tail_bytes(self) -> int:
        """Memory of the tail for each cell."""

    @property
    def most_channels(self) -> tuple[int, int]:
        """Values of the largest tensor for each cell: in the body, in the tail."""

    def body(self, frames: Tensor) -> Tensor:
        """Map float32 (N, 3, H, W) in 0..1, sides multiples of `cell`, to (N, C, H / cell, W / cell)."""

    def tail(self, features: Tensor) -> Tensor:
        """Map what `body` returned to float32 (N, 3, factor * h, factor * w), not held in 0..1."""


Part = Callable[[Tensor], Tensor]


class Parts(NamedTuple):
    """What runs: a network's own body and tail, or those compiled."""

    body: Part
    tail: Part


def network_of(
    architecture: Architecture, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype | None = None
) -> Network:
    """Return the network on its device.

    Args:
        architecture: Which one.
        weights: Every tensor that its ``shapes`` names.
        device: Where it runs.
        dtype: Format of the convolutions; None for float16 on a GPU and float32 on a CPU.
    """
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    if isinstance(architecture, Rrdb):
        return RrdbNetwork(architecture, weights, device, dtype)
    return CompactNetwork(architecture, weights, device, dtype)
