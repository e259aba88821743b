"""A clip that an encoder meets as it meets films: the spectrum of photographs, a moving camera, grain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Frames = npt.NDArray[np.uint8]

_PAN = 0.7
"""Pixels a frame: no whole number, or every picture would be in the one before it."""
_ZOOM = 0.0015
"""Growth a frame."""


def drawn_clip(count: int, width: int, height: int, *, still: bool = False) -> Frames:
    """Return a texture under grain and a moving square; the camera pans and zooms, or is still.

    Returns:
        uint8 (count, height, width, 3).
    """
    scene = Image.fromarray(_texture(width + count, height + height // 4).clip(0, 255).astype(np.uint8))
    rng, side, clip = np.random.default_rng(5), height // 5, np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        seen = 0 if still else number
        size = 1 / (1 + _ZOOM * seen)
        at = (size, 0, _PAN * seen, 0, size, height / 16)
        frame = np.asarray(scene.transform((width, height), Image.Transform.AFFINE, at, Image.Resampling.BICUBIC))
        frame = frame + rng.normal(size=frame.shape)
        left, top = round(width * (0.4 + 0.25 * np.sin(number / 12))), 2 * side
        frame[top : top + side, left : left + side] = (220, 40, 60)
        clip[number] = frame.clip(0, 255)
    return clip


def _texture(width: int, height: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1
    noise = rng.normal(size=(3, height, width))
    plain = np.fft.ifft2(np.fft.fft2(noise) / frequency**1.2).real.transpose(1, 2, 0)
    plain = 0.8 * plain.mean(2, keepdims=True) + 0.2 * plain
    return 128 + 50 * plain / plain.std()
