"""Frames between frames, by doubling: level by level, in batches that fit a budget of memory.

A frame made on one level is an end on the next, as it came out of the network: only what leaves is rounded.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitascope_frames.chunk import Frames
from vitascope_interpolator.network import PACKED, Network

_BYTES_A_PIXEL = {torch.float32: 440, torch.float16: 350}
"""Memory that one pair takes at its peak, for each pixel of the padded frame, at scale 1."""

_WHITE = 255


def interpolate(
    network: Network, frames: Frames, lead: Frames | None, *, exp: int, scale: float, budget: int
) -> Frames:
    """Return the frames with 2**exp - 1 new ones in every gap; the given ones are kept byte for byte.

    Args:
        network: Makes the frame halfway between two.
        frames: uint8 (T, H, W, 3 or 4). A fourth channel is moved and blended like the colours, which do not heed it.
        lead: uint8 (H, W, 3 or 4), the frame before the first, or None. The frames between the two belong to the
            result, the lead does not.
        exp: How often the number of gaps is doubled, at least once.
        scale: Resolution of the flow relative to the frame.
        budget: Bytes of the device's memory for what is worked on at once; one pair is always. What is given and what
            is made comes on top, as uint8.

    Returns:
        uint8 ((T - 1) * 2**exp + 1, H, W, C), with a lead (T * 2**exp, H, W, C).
    """
    factor = 2**exp
    with torch.inference_mode():
        given = _uploaded(frames, lead, network.device)
        gaps = len(given) - 1
        made = given.new_empty((gaps * factor + 1, *given.shape[1:]))
        made[::factor] = given
        padded = _padded_size(given, network.architecture.multiple(scale))
        room = _pairs_at_once(network.dtype, padded, exp, scale, budget)
        last = None
        for first in range(0, gaps, room):
            # The frame that two groups of gaps share is encoded for the first and handed on.
            begin = first if last is None else first + 1
            ends = network.encode(_as_floats(given[begin : first + room + 1], padded))
            ends = ends if last is None else torch.cat((last, ends))
            last = ends[-1:].clone()
            _fill(network, ends, made[first * factor : (first + room) * factor + 1], exp, scale, room)
        return _downloaded(made)[0 if lead is None else 1 :]


def _fill(network: Network, ends: Tensor, made: Tensor, exp: int, scale: float, room: int) -> None:
    """Write the frames between ``ends``, packed (N + 1, …), to their places in ``made``, uint8 (N * 2**exp + 1, …)."""
    height, width = made.shape[1:3]
    for level in range(exp):
        step = 2 ** (exp - level)
        levels_own = []
        for first in range(0, len(ends) - 1, room):
            between = network.between(ends[first : first + room + 1], scale)
            start = first * step + step // 2
            made[start : start + len(between) * step : step] = _as_bytes(between[:, :, :height, :width])
            if level + 1 < exp:
                # As if cropped and padded anew.
                between[:, :, height:] = 0
                between[:, :, :, width:] = 0
                levels_own.append(network.encode(between))
        if level + 1 < exp:
            ends = _alternating(ends, torch.cat(levels_own))


def _pairs_at_once(dtype: torch.dtype, padded: tuple[int, int], exp: int, scale: float, budget: int) -> int:
    """Return how many gaps are worked on together: by the sizes alone, so that a result never depends on the load."""
    # Mostly the finest stages' layers, which grow with the scale. Besides, ends of later levels are held.
    working = _BYTES_A_PIXEL[dtype] * max(0.5, scale * scale)
    held = 4 * PACKED * 2 ** (exp - 1)
    return max(1, int(budget // ((working + held) * padded[0] * padded[1])))


def _padded_size(frames: Tensor, multiple: int) -> tuple[int, int]:
    height, width = frames.shape[1:3]
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def _as_floats(frames: Tensor, padded: tuple[int, int]) -> Tensor:
    """Return uint8 (N, H, W, C) as float32 (N, C, H', W') in 0..1, with zeros on the right and at the bottom."""
    count, height, width, channels = frames.shape
    floats = torch.zeros((count, channels, *padded), device=frames.device)
    floats[:, :, :height, :width] = frames.permute(0, 3, 1, 2)
    return floats.div_(_WHITE)


def _as_bytes(frames: Tensor) -> Tensor:
    """Return float (N, C, H, W) in 0..1, rounded to nearest, as float (N, H, W, C) of whole numbers."""
    # To cut off instead would darken what stands still by a level in every new frame: flicker.
    return frames.mul(_WHITE).round_().clamp_(0, _WHITE).permute(0, 2, 3, 1)


def _alternating(ends: Tensor, between: Tensor) -> Tensor:
    both = ends.new_empty((len(ends) + len(between), *ends.shape[1:]))
    both[::2] = ends
    both[1::2] = between
    return both


def _uploaded(frames: Frames, lead: Frames | None, device: torch.device) -> Tensor:
    """Return the lead, if there is one, and the frames on the device, in one transfer."""
    parts = [frames] if lead is None else [lead[None], frames]
    staged = torch.empty((sum(map(len, parts)), *frames.shape[1:]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.concatenate(parts, out=staged.numpy())
    return staged.to(device)


def _downloaded(made: Tensor) -> Frames:
    if made.device.type != "cuda":
        return made.numpy()
    host = torch.empty(made.shape, dtype=torch.uint8, pin_memory=True)
    host.copy_(made)
    return host.numpy()
