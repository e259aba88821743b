"""The convolutions of Real-ESRGAN's networks, from a checkpoint's tensors to what runs on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

SLOPE = 0.2
"""Of every leaky ReLU."""

_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, eq=False)
class Convolution:
    """A convolution that keeps the size: 3 x 3, padding 1."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        return _convolved(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Doubling:
    """Enlarging by repeated pixels, a convolution and its activation, computed at the small size.

    Where every pixel is there twice, a 3 x 3 window sees 2 x 2 different ones. Which ones depends on the place of the
    output in its square of four; so the taps are summed for each place, and there are four times the outputs. A window
    is shared by the right lower place of one square and the left upper place of the next, hence one more row and column
    than squares.
    """

    weight: Tensor
    """(4 * outputs, inputs, 2, 2): places left above, right above, left below, right below."""
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, 2 H, 2 W)."""
        count, _, height, width = x.shape
        windows = _convolved(x, self.weight, self.bias)
        wide = self.weight.shape[0] // 4
        size = (count, wide, 2 * height, 2 * width)
        large = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for place in range(4):
            down, right = divmod(place, 2)
            seen = windows[:, place * wide : (place + 1) * wide, down : down + height, right : right + width]
            leaky_into(seen, large[:, :, down::2, right::2])
        return large


class Weights:
    """The tensors of a checkpoint on their way to the device.

    Args:
        tensors: By name.
        device: Where the layers run.
        dtype: Format of weights and activations.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._tensors = tensors
        self._device = device
        self._dtype = dtype

    def convolution(self, name: str, factor: float = 1.0) -> Convolution:
        """Return a convolution whose outputs are multiplied by ``factor``."""
        weight, bias = self._float(f"{name}.weight"), self._float(f"{name}.bias")
        return Convolution(self._placed(weight * factor), self._placed(bias * factor))

    def doubling(self, name: str) -> Doubling:
        """Return a convolution that follows an enlargement by repeated pixels, both in one."""
        weight, bias = self._float(f"{name}.weight"), self._float(f"{name}.bias")
        rows = [_summed(weight, 2, down) for down in range(2)]
        places = [_summed(each, 3, right) for each in rows for right in range(2)]
        return Doubling(self._placed(torch.cat(places)), self._placed(bias.repeat(4)))

    def slopes(self, name: str) -> Tensor:
        """Return the slopes of a PReLU, one for each channel."""
        return self._placed(self._float(f"{name}.weight"))

    def _float(self, name: str) -> Tensor:
        # A checkpoint may hold half precision: what is folded is folded in full.
        return self._tensors[name].float()

    def _placed(self, tensor: Tensor) -> Tensor:
        placed = tensor.to(self._device, self._dtype)
        return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.device.type == "cpu" and _ONEDNN and not torch.compiler.is_compiling():
        # Left to itself, PyTorch convolves small tensors in another way, whose sums differ in the last bit: how a frame
        # is cut would show.
        return torch.mkldnn_convolution(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
    return F.conv2d(x, weight, bias, padding=1)


def _summed(weight: Tensor, axis: int, place: int) -> Tensor:
    """Return three taps as the two that are left for the first or second place of a square."""
    first, middle, last = (weight.narrow(axis, tap, 1) for tap in range(3))
    return torch.cat((first + middle, last) if place else (first, middle + last), axis)


def leaky_into(x: Tensor, out: Tensor) -> Tensor:
    """Write the leaky ReLU of ``x`` to ``out``, which may be part of a larger tensor."""
    if torch.compiler.is_compiling():
        return out.copy_(F.leaky_relu(x, SLOPE))  # into one kernel; ``out`` of a call cannot be traced
    result: Tensor = torch.ops.aten.leaky_relu.out(x, SLOPE, out=out)
    return result
