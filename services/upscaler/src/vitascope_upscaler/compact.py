"""SRVGGNetCompact: the light network of Real-ESRGAN, for moving pictures and general ones.

Source: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021
    (arXiv:2107.10833); the network of its later models.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from vitascope_upscaler.architecture import COLOURS, Compact
from vitascope_upscaler.layers import Weights


class CompactNetwork:
    """A loaded SRVGGNetCompact on its device. Not for two threads at once.

    It sees few pixels around each, so all of it may run in strips of the frame.

    Args:
        architecture: Sizes of the network.
        weights: Every tensor that `Compact.shapes` names.
        device: Where it runs.
        dtype: Format of the convolutions.
    """

    def __init__(
        self, architecture: Compact, weights: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.architecture = architecture
        self.device = device
        self.dtype = dtype
        placed = Weights(weights, device, dtype)
        self._last = placed.convolution(f"body.{2 * (architecture.convolutions + 1)}")
        self._layers = [
            (placed.convolution(f"body.{2 * place}"), placed.slopes(f"body.{2 * place + 1}"))
            for place in range(architecture.convolutions + 1)
        ]

    @property
    def cell(self) -> int:
        """Pixels of the frame on a side of a cell: it works on pixels."""
        return 1

    @property
    def factor(self) -> int:
        """Pixels of the output on a side of a cell."""
        return self.architecture.scale

    @property
    def body_halo(self) -> int:
        """None: nothing needs the whole frame."""
        return 0

    @property
    def tail_halo(self) -> int:
        """Pixels that the network sees beyond its own: one for each of its convolutions."""
        return self.architecture.convolutions + 2

    @property
    def body_bytes(self) -> int:
        """None."""
        return 0

    @property
    def held_bytes(self) -> int:
        """Memory of the frame as floats, for each pixel."""
        return COLOURS * torch.float32.itemsize

    @property
    def tail_bytes(self) -> int:
        """Memory of the network, for each pixel: three layers, or the last one's output, enlarged and as float32."""
        features, colours = self.architecture.features, COLOURS * self.factor**2
        return max(3 * features, features + 2 * colours) * self.dtype.itemsize + 2 * colours * torch.float32.itemsize

    @property
    def most_channels(self) -> tuple[int, int]:
        """Values of the largest tensor for each pixel."""
        return COLOURS, max(self.architecture.features, COLOURS * self.factor**2)

    def body(self, frames: Tensor) -> Tensor:
        """Return the frames, float32 (N, 3, H, W), as they are."""
        return frames

    def tail(self, features: Tensor) -> Tensor:
        """Return enlarged frames, float32 (N, 3, factor * H, factor * W), not held in 0..1."""
        x = features.to(self.dtype, memory_format=torch.channels_last)
        for layer, slopes in self._layers:
            x = F.prelu(layer(x), slopes)
        added = F.pixel_shuffle(self._last(x), self.factor).float()
        # What the network makes is added to the frame in full precision.
        return added.add_(F.interpolate(features, scale_factor=self.factor, mode="nearest"))
