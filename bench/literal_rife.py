"""RIFE step by step as its authors describe it: what the interpolator is measured against, in time and in pixels.

One pair at a time, features encoded for each pair, every tensor at full size, recursion for more than one new frame. It
takes the public checkpoint's tensors under their public names and shares no line with the interpolator. Weights drawn
from a seed stand in for the public ones: they move things by some pixels and mix what they see.
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


def interpolate(weights: Mapping[str, Tensor], frames: Frames, exp: int, scale: float) -> Frames:
    """Return (N - 1) * 2**exp + 1 frames, uint8 (N, H, W, 3), rounded to nearest."""
    pictures = [torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255 for frame in frames]
    made = [frames[0]]
    for first, second, kept in zip(pictures, pictures[1:], frames[1:], strict=False):
        made += [_bytes(middle) for middle in _recursion(weights, first, second, 2**exp - 1, scale)]
        made.append(kept)
    return np.stack(made)


def seeded_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return weights of these shapes that keep activations in range and flows at some pixels."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith(".bias"):
            weights[name] = drawn * 0.05
        elif name.endswith(".beta"):
            weights[name] = 0.3 + drawn * 0.1
        else:
            fan_in = shape[1] * 9 if shape[2] == 3 else shape[0] * 4
            weights[name] = drawn * math.sqrt(2 / fan_in) * (0.3 if "lastconv" in name else 1)
    return weights


def moving_clip(frames: int, height: int, width: int) -> Frames:
    """Return a disc over waves, moving differently, uint8 (frames, height, width, 3)."""
    down, across = np.mgrid[:height, :width]
    clip = np.empty((frames, height, width, 3), np.uint8)
    for number, frame in enumerate(clip):
        for colour in range(3):
            wave = np.sin((across + 3 * number) / 9 + colour) * np.cos((down - 2 * number) / 13 + colour)
            frame[:, :, colour] = 128 + 90 * wave
        frame[np.hypot(down - height / 2, across - width / 4 - 4 * number) < height / 5] = (230, 40, 90)
    return clip


def _recursion(weights: Mapping[str, Tensor], first: Tensor, second: Tensor, count: int, scale: float) -> list[Tensor]:
    half = middle(weights, first, second, scale)
    if count == 1:
        return [half]
    before = _recursion(weights, first, half, count // 2, scale)
    return [*before, half, *_recursion(weights, half, second, count // 2, scale)]


def _bytes(picture: Tensor) -> Frames:
    return np.rint(picture[0].permute(1, 2, 0).numpy() * np.float32(255)).clip(0, 255).astype(np.uint8)


def middle(weights: Mapping[str, Tensor], first: Tensor, second: Tensor, scale: float) -> Tensor:
    """Return the frame halfway between two of (1, 3, H, W) in 0..1: padded, computed, cropped."""
    height, width = first.shape[2:]
    coarsest = 16 if "block4.lastconv.0.bias" in weights else 8
    multiple = max(4 * coarsest, round(4 * coarsest / scale))
    right, bottom = -width % multiple, -height % multiple
    padded = (F.pad(frame, (0, right, 0, bottom)) for frame in (first, second))
    with torch.no_grad():
        return _network(weights, *padded, scale)[:, :, :height, :width]


def _network(weights: Mapping[str, Tensor], first: Tensor, second: Tensor, scale: float) -> Tensor:
    features = _encode(weights, first), _encode(weights, second)
    when = torch.full_like(first[:, :1], 0.5)
    flow = mask = rest = None
    stages = 5 if "block4.lastconv.0.bias" in weights else 4
    for stage in range(stages):
        shrink = 2 ** (stages - 1 - stage) / scale
        if flow is None:
            delta, mask, rest = _block(weights, stage, torch.cat((first, second, *features, when), 1), None, shrink)
            flow = delta
            continue
        images = _warp(first, flow[:, :2]), _warp(second, flow[:, 2:4])
        warped = _warp(features[0], flow[:, :2]), _warp(features[1], flow[:, 2:4])
        delta, mask, rest = _block(weights, stage, torch.cat((*images, *warped, when, mask, rest), 1), flow, shrink)
        flow = flow + delta
    assert flow is not None
    assert mask is not None
    share = torch.sigmoid(mask)
    return _warp(first, flow[:, :2]) * share + _warp(second, flow[:, 2:4]) * (1 - share)


def _encode(weights: Mapping[str, Tensor], image: Tensor) -> Tensor:
    x = F.leaky_relu(_conv(weights, "encode.cnn0", image, 2), 0.2)
    x = F.leaky_relu(_conv(weights, "encode.cnn1", x), 0.2)
    x = F.leaky_relu(_conv(weights, "encode.cnn2", x), 0.2)
    return _transposed(weights, "encode.cnn3", x)


def _block(
    weights: Mapping[str, Tensor], stage: int, x: Tensor, flow: Tensor | None, shrink: float
) -> tuple[Tensor, Tensor, Tensor]:
    name = f"block{stage}"
    x = _resized(x, 1 / shrink)
    if flow is not None:
        x = torch.cat((x, _resized(flow, 1 / shrink) / shrink), 1)
    x = F.leaky_relu(_conv(weights, f"{name}.conv0.0.0", x, 2), 0.2)
    x = F.leaky_relu(_conv(weights, f"{name}.conv0.1.0", x, 2), 0.2)
    for place in range(8):
        part = f"{name}.convblock.{place}"
        x = F.leaky_relu(_conv(weights, f"{part}.conv", x) * weights[f"{part}.beta"] + x, 0.2)
    x = F.pixel_shuffle(_transposed(weights, f"{name}.lastconv.0", x), 2)
    x = _resized(x, shrink)
    return x[:, :4] * shrink, x[:, 4:5], x[:, 5:]


def _conv(weights: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, 1)


def _transposed(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1)


def _resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch each pixel from where the flow, in pixels (x, y), points."""
    height, width = image.shape[2:]
    across = torch.linspace(-1, 1, width).view(1, 1, width).expand(1, height, width)
    down = torch.linspace(-1, 1, height).view(1, height, 1).expand(1, height, width)
    x = across + flow[:, 0] / ((width - 1) / 2)
    y = down + flow[:, 1] / ((height - 1) / 2)
    return F.grid_sample(image, torch.stack((x, y), 3), "bilinear", "border", align_corners=True)
