"""RIFE's IFNet: frames in, the frames halfway between them out.

Source: Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022
    (arXiv:2011.06294); the network of versions 4.22.lite, 4.25 and 4.26.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vitascope_interpolator.architecture import COLOURS, FEATURES, FLOW, Architecture
from vitascope_interpolator.layers import Head, Stage, Weights
from vitascope_interpolator.sampling import Sampler, middles, reduced, resized

PACKED = COLOURS + FEATURES
"""Channels of a packed frame: red, green, blue, then the features."""

_HALFWAY = 0.5


class Network:
    """A loaded network on its device. Not for two threads at once.

    The convolutions run in float16 on a GPU and in float32 on a CPU. Flow, sampling and blending are float32
    everywhere: a position at half precision is off by a tenth of a pixel at width 832.

    How it is computed differs from the literal procedure, what is computed does not:

    - A frame is encoded once, and its colours and features are sampled together.
    - ``beta`` and the sum of a residual layer are part of its convolution.
    - Reducing by an even factor reads the middle 2 x 2 of every square, so only those pixels are sampled.
    - Mask and features go from stage to stage at the stages' own sizes: enlarging by 2n and then reducing by n is
      enlarging by 2.

    Args:
        architecture: Which version the weights are of.
        weights: Every tensor that `Architecture.shapes` names.
        device: Where it runs.
        dtype: Format of the convolutions; None for the device's own.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.architecture = architecture
        self.device = device
        self.dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
        placed = Weights(weights, device, self.dtype)
        self._head = Head(placed)
        count = len(architecture.channels)
        self._stages = [Stage(placed, f"block{stage}", first=stage == 0) for stage in range(count)]
        self._sample = Sampler()

    def encode(self, frames: Tensor) -> Tensor:
        """Return frames packed with their features.

        Args:
            frames: float32 (N, 3 or 4, H, W) in 0..1; sides are multiples of `Architecture.multiple`.

        Returns:
            float32 (N, 7 or 8, H, W): colours, features, and the fourth channel, which the network does not see.
        """
        colours = frames[:, :COLOURS]
        features = self._head(colours.to(self.dtype, memory_format=torch.channels_last))
        return torch.cat((colours, features.float(), frames[:, COLOURS:]), 1)

    def between(self, frames: Tensor, scale: float) -> Tensor:
        """Return the frames halfway between neighbours.

        Args:
            frames: float32 (N + 1, 7 or 8, H, W): consecutive frames as `encode` packs them.
            scale: Resolution of the flow relative to the frame.

        Returns:
            float32 (N, 3 or 4, H, W) in 0..1. A fourth channel is sampled and blended like the colours.
        """
        packed = frames[:, :PACKED]
        factors = self.architecture.factors(scale)
        small = resized(packed, 1 / factors[0])
        out = self._stages[0](self._input(small[:-1], small[1:]))
        flow = resized(out[:, :FLOW].float(), factors[0]).mul_(factors[0])
        for stage, factor, before in zip(self._stages[1:], factors[1:], factors, strict=False):
            near = middles(flow, factor)
            first = reduced(self._sample(packed[:-1], near[:, :2], factor), factor)
            second = reduced(self._sample(packed[1:], near[:, 2:], factor), factor)
            carried = resized(out[:, FLOW:], 2) if before >= 1 else resized(resized(out[:, FLOW:], before), 1 / factor)
            out = stage(self._input(first, second, carried, reduced(near, factor) / factor))
            flow.add_(resized(out[:, :FLOW].float(), factor), alpha=factor)
        share = resized(out[:, FLOW : FLOW + 1].float(), factors[-1]).sigmoid_()
        return self._blended(frames, flow, share)

    def _input(self, first: Tensor, second: Tensor, *more: Tensor) -> Tensor:
        halfway = first.new_full((1,), _HALFWAY).expand(len(first), 1, *first.shape[2:])
        parts = torch.cat((first, second, halfway, *more), 1)
        return parts.to(self.dtype, memory_format=torch.channels_last)

    def _blended(self, frames: Tensor, flow: Tensor, share: Tensor) -> Tensor:
        if frames.shape[1] == PACKED:
            colours = frames[:, :COLOURS]
        else:
            colours = torch.cat((frames[:, :COLOURS], frames[:, PACKED:]), 1)
        first = self._sample(colours[:-1], flow[:, :2])
        second = self._sample(colours[1:], flow[:, 2:])
        return torch.lerp(second, first, share)
