"""RIFE 4.22.lite, written to be trained: the interpolator's own network can only be run.

Source: Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation", ECCV 2022
    (arXiv:2011.06294); the network of version 4.22.lite.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from tools.train.pictures import MIDDLE
from vitascope_interpolator.architecture import FEATURES, FLOW, RESIDUALS, RIFE_4_22_LITE

_SLOPE = 0.2


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cnn0 = nn.Conv2d(3, 16, 3, 2, 1)
        self.cnn1 = nn.Conv2d(16, 16, 3, 1, 1)
        self.cnn2 = nn.Conv2d(16, 16, 3, 1, 1)
        self.cnn3 = nn.ConvTranspose2d(16, FEATURES, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.cnn0, self.cnn1, self.cnn2):
            x = F.leaky_relu(layer(x), _SLOPE)
        features: Tensor = self.cnn3(x)
        return features


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(1, width, 1, 1))
        self.conv = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x) * self.beta + x, _SLOPE)


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()

        def halved(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.LeakyReLU(_SLOPE))

        self.conv0 = nn.Sequential(halved(inputs, width // 2), halved(width // 2, width))
        self.convblock = nn.Sequential(*(_Residual(width) for _ in range(RESIDUALS)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, outputs, 4, 2, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.lastconv(self.convblock(self.conv0(x)))
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Guess:
    """What a stage makes of a pair.

    Attributes:
        frame: float32 (N, 3, H, W): the frame halfway between.
        flow: float32 (N, 4, H, W): where its pixels are in the first and in the second frame: x, y, x, y in pixels.
    """

    frame: Tensor
    flow: Tensor


class Rife(nn.Module):
    """RIFE 4.22.lite, written to be trained. Its parameters have the names of the public checkpoint.

    Args:
        half: Whether the convolutions compute in bfloat16, nearly twice as fast where `training.halves_pay`.
    """

    def __init__(self, *, half: bool = False) -> None:
        super().__init__()
        self._half = half
        shapes = RIFE_4_22_LITE.shapes()
        self.encode = _Encoder()
        self.stages = len(RIFE_4_22_LITE.channels)
        for stage, width in enumerate(RIFE_4_22_LITE.channels):
            inputs = shapes[f"block{stage}.conv0.0.0.weight"][1]
            outputs = shapes[f"block{stage}.lastconv.0.bias"][0]
            self.add_module(f"block{stage}", _Block(inputs, width, outputs))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, first: Tensor, second: Tensor) -> list[Guess]:
        """Return what each stage makes of pairs, the last one best.

        Args:
            first: float32 (N, 3, H, W) in 0..1, sides multiples of 32.
            second: As ``first``.
        """
        both = torch.cat((first, second))
        packed = torch.cat((both, self._run(self.encode, both)), 1)
        guesses: list[Guess] = []
        flow, seen, carried = None, packed, None
        for stage in range(self.stages):
            factor = 2.0 ** (self.stages - 1 - stage)
            made = self._stage(stage, seen, flow, carried, factor)
            step, carried = made[:, :FLOW] * factor, made[:, FLOW:]
            flow = step if flow is None else flow + step
            seen = fetched(packed, torch.cat((flow[:, :2], flow[:, 2:])))
            one, other = seen[:, :3].chunk(2)
            guesses.append(Guess(torch.lerp(other, one, torch.sigmoid(carried[:, :1])), flow))
        return guesses

    def _stage(self, stage: int, seen: Tensor, flow: Tensor | None, carried: Tensor | None, factor: float) -> Tensor:
        one, other = seen.chunk(2)
        halfway = torch.full_like(one[:, :1], MIDDLE)
        parts = [one[:, :3], other[:, :3], one[:, 3:], other[:, 3:], halfway]
        if carried is not None:
            parts.append(carried)
        if flow is not None:
            parts.append(flow / factor)
        block: nn.Module = getattr(self, f"block{stage}")
        return _resized(self._run(block, _resized(torch.cat(parts, 1), 1 / factor)), factor)

    def _run(self, part: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._half):
            made: Tensor = part(x.contiguous(memory_format=torch.channels_last))
        return made.float()


def _resized(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def fetched(image: Tensor, flow: Tensor) -> Tensor:
    """Return the image's pixels from where the flow, (N, 2, H, W) in pixels, points."""
    height, width = image.shape[2:]
    down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    x = across + flow[:, 0] * (2 / (width - 1))
    y = down + flow[:, 1] * (2 / (height - 1))
    return F.grid_sample(image, torch.stack((x, y), 3), "bilinear", "border", align_corners=True)
