"""How near pictures come to the true ones, and weights as they are handed out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitascope_frames.chunk import Frames

_WHITE = 255
_LEAST_ERROR = 0.01
"""Squared, in levels: equal pictures have 68 decibels."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The mean peak signal-to-noise ratio of what a network makes, and of what can be had without one.

    Attributes:
        network: Decibels.
        plain: Decibels of the plain method.
    """

    network: float
    plain: float

    @property
    def gain(self) -> float:
        """Decibels by which the network is better."""
        return self.network - self.plain


def decibels(made: Frames, true: Frames) -> float:
    """Return the peak signal-to-noise ratio of pictures, all taken together; at most 68."""
    error = float(np.square(made.astype(np.float64) - true).mean())
    return float(10 * np.log10(_WHITE**2 / max(error, _LEAST_ERROR)))


def as_bytes(frames: Tensor) -> Frames:
    """Return float (N, 3, H, W) in about 0..1, rounded to nearest, as uint8 (N, H, W, 3)."""
    return frames.clamp(0, 1).mul(_WHITE).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def as_floats(frames: Frames) -> Tensor:
    """Return uint8 (N, H, W, 3) as float32 (N, 3, H, W) in 0..1."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / _WHITE


def write_weights(network: nn.Module, file: Path) -> Path:
    """Write a network's tensors as float16 safetensors and return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, file)
    return file


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file as float32, to be trained further."""
    return {name: tensor.float() for name, tensor in load_file(file).items()}
