"""Real-ESRGAN step by step as its authors describe it: what the upscaler is measured against, in time and in pixels.

One frame at a time, every tensor at full size, concatenations and enlargements as they are written. It takes the
public checkpoints' tensors under their public names and shares no line with the upscaler. Weights drawn from a seed
stand in for the public ones: they change what they enlarge, but keep it recognisable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

Frames = npt.NDArray[np.uint8]


def upscale(weights: Mapping[str, Tensor], frames: Frames, scale: float) -> Frames:
    """Return frames of int(H * scale) x int(W * scale), uint8 (N, H', W', 3), rounded to nearest."""
    size = int(frames.shape[1] * scale), int(frames.shape[2] * scale)
    made = []
    for frame in frames:
        picture = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            large = network(weights, picture)
            if large.shape[2:] != size:
                large = F.interpolate(large, size=size, mode="bicubic", align_corners=False)
        made.append(np.rint(large[0].clamp(0, 1).permute(1, 2, 0).numpy() * np.float32(255)).astype(np.uint8))
    return np.stack(made)


def seeded_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return weights of these shapes that keep activations in range and the output around the middle of it."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            gain = 0.3 if name.startswith("conv_last") else 1.0
            weights[name] = drawn * gain * math.sqrt(1.5 / (shape[1] * 9))
        elif name.endswith(".weight"):
            weights[name] = 0.25 + drawn * 0.1
        else:
            weights[name] = drawn * 0.02 + (0.5 if name == "conv_last.bias" else 0)
    return weights


def network(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return what the network makes of (1, 3, H, W) in 0..1, not held in that range."""
    return _rrdb(weights, x) if "conv_first.weight" in weights else _compact(weights, x)


def _rrdb(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    side = math.isqrt(weights["conv_first.weight"].shape[1] // 3)
    height, width = x.shape[2:]
    x = F.pixel_unshuffle(F.pad(x, (0, -width % side, 0, -height % side), "reflect"), side)
    first = x = _conv(weights, "conv_first", x)
    block = 0
    while f"body.{block}.rdb1.conv1.weight" in weights:
        x = _block(weights, f"body.{block}", x)
        block += 1
    x = first + _conv(weights, "conv_body", x)
    up = 1
    while f"conv_up{up}.weight" in weights:
        large = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.leaky_relu(_conv(weights, f"conv_up{up}", large), 0.2)
        up += 1
    x = _conv(weights, "conv_last", F.leaky_relu(_conv(weights, "conv_hr", x), 0.2))
    scale = 2 ** (up - 1) // side
    return x[:, :, : height * scale, : width * scale]


def _block(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    inner = x
    for dense in (1, 2, 3):
        seen = [inner]
        for place in (1, 2, 3, 4):
            made = _conv(weights, f"{name}.rdb{dense}.conv{place}", torch.cat(seen, 1))
            seen.append(F.leaky_relu(made, 0.2))
        inner = _conv(weights, f"{name}.rdb{dense}.conv5", torch.cat(seen, 1)) * 0.2 + inner
    return inner * 0.2 + x


def _compact(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    y, place = x, 0
    while f"body.{place + 1}.weight" in weights:
        y = F.prelu(_conv(weights, f"body.{place}", y), weights[f"body.{place + 1}.weight"])
        place += 2
    y = _conv(weights, f"body.{place}", y)
    scale = math.isqrt(y.shape[1] // 3)
    return F.pixel_shuffle(y, scale) + F.interpolate(x, scale_factor=scale, mode="nearest")


def _conv(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
