"""The convolutions of RIFE's network, from the public checkpoint's tensors to what runs on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from vitascope_interpolator.architecture import COLOURS, FEATURES, RESIDUALS

SLOPE = 0.2
"""Of every leaky ReLU."""


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution with padding 1; transposed, it doubles the size."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    transposed: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride), or to twice the size."""
        if self.transposed:
            return F.conv_transpose2d(x, self.weight, self.bias, self.stride, 1)
        return F.conv2d(x, self.weight, self.bias, self.stride, 1)


class Weights:
    """The tensors of a checkpoint on their way to the device.

    Args:
        tensors: By name, as `Architecture.shapes` lists them.
        device: Where the layers run.
        dtype: Format of weights and activations.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._tensors = tensors
        self._device = device
        self._dtype = dtype

    def convolution(self, name: str, stride: int = 1, inputs: list[int] | None = None) -> Convolution:
        """Return a convolution; ``inputs`` is the order in which its input channels will come."""
        weight = self._float(f"{name}.weight")
        return self._placed(weight if inputs is None else weight[:, inputs], self._float(f"{name}.bias"), stride)

    def transposed(self, name: str) -> Convolution:
        """Return a transposed convolution."""
        weight, bias = self._float(f"{name}.weight"), self._float(f"{name}.bias")
        return self._placed(weight, bias, 2, transposed=True)

    def residual(self, name: str) -> Convolution:
        """Return ``conv(x) * beta + x`` as one convolution."""
        beta = self._float(f"{name}.beta")
        weight = self._float(f"{name}.conv.weight") * beta.view(-1, 1, 1, 1)
        bias = self._float(f"{name}.conv.bias") * beta.flatten()
        channel = torch.arange(len(weight))
        weight[channel, channel, 1, 1] += 1
        return self._placed(weight, bias)

    def _float(self, name: str) -> Tensor:
        # A checkpoint may hold half precision: what is folded is folded in full.
        return self._tensors[name].float()

    def _placed(self, weight: Tensor, bias: Tensor, stride: int = 1, *, transposed: bool = False) -> Convolution:
        placed = weight.to(self._device, self._dtype).contiguous(memory_format=torch.channels_last)
        return Convolution(placed, bias.to(self._device, self._dtype), stride, transposed)


class Head:
    """Turns colours into features, at the frame's own size."""

    def __init__(self, weights: Weights) -> None:
        self._down = (
            weights.convolution("encode.cnn0", 2),
            weights.convolution("encode.cnn1"),
            weights.convolution("encode.cnn2"),
        )
        self._up = weights.transposed("encode.cnn3")

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 4, H, W)."""
        for layer in self._down:
            x = F.leaky_relu_(layer(x), SLOPE)
        return self._up(x)


class Stage:
    """One stage of the flow's estimation.

    Its inputs come frame by frame (colours and features of the first, of the second), not kind by kind as in the
    checkpoint: so they leave the sampler.
    """

    def __init__(self, weights: Weights, name: str, *, first: bool) -> None:
        self._down = (
            weights.convolution(f"{name}.conv0.0.0", 2, _input_order(first=first)),
            weights.convolution(f"{name}.conv0.1.0", 2),
        )
        self._residuals = [weights.residual(f"{name}.convblock.{place}") for place in range(RESIDUALS)]
        self._up = weights.transposed(f"{name}.lastconv.0")

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, 15 or 28, h, w) to (N, 13, h, w): flow, mask, features."""
        for layer in (*self._down, *self._residuals):
            x = F.leaky_relu_(layer(x), SLOPE)
        return F.pixel_shuffle(self._up(x), 2)


def _input_order(*, first: bool) -> list[int]:
    """Return where in the checkpoint's order each input channel of a stage stands."""
    colours, features = range(2 * COLOURS), range(2 * COLOURS, 2 * (COLOURS + FEATURES))
    order = [*colours[:COLOURS], *features[:FEATURES], *colours[COLOURS:], *features[FEATURES:]]
    return [*order, *range(len(order), 15 if first else 28)]
