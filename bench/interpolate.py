"""RIFE as the interpolator runs it against the literal procedure, in CPU time on one thread (at least 1.15 times)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench import literal_rife
from vitascope_core.plan import InterpolateOptions
from vitascope_frames.chunk import Chunk
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_interpolator.interpolator import Interpolator
from vitascope_interpolator.settings import InterpolatorSettings
from vitascope_weights.device import Device

FRAMES, HEIGHT, WIDTH = 5, 256, 448
ROUNDS = 5


def _cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _compared(weights: dict[str, torch.Tensor], interpolator: Interpolator, exp: int) -> str:
    frames = literal_rife.moving_clip(FRAMES, HEIGHT, WIDTH)
    chunk = Chunk(frames, 0, 0, 0, last=True, fps=Fraction(16))
    new = (FRAMES - 1) * (2**exp - 1)
    ours, literal = [], []
    for _ in range(ROUNDS):  # in turns: what else the machine does meets both
        literal.append(_cpu_seconds(lambda: literal_rife.interpolate(weights, frames, exp, 1.0)) / new)
        ours.append(_cpu_seconds(lambda: interpolator.apply(chunk, InterpolateOptions(exp))) / new)
    ratio = statistics.median(before / after for before, after in zip(literal, ours, strict=True))
    return (
        f"{HEIGHT}x{WIDTH}, exp {exp}   {statistics.median(ours) * 1e3:.0f} ms a new frame, literally "
        f"{statistics.median(literal) * 1e3:.0f} ms   ratio {ratio:.2f} (at least 1.15)"
    )


async def measure() -> list[str]:
    """Return the lines of the report."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights = literal_rife.seeded_weights(RIFE_4_22_LITE.shapes(), seed=1)
        with TemporaryDirectory() as folder:
            torch.save(weights, Path(folder) / "flownet.pkl")
            interpolator = Interpolator(InterpolatorSettings(folder, device=Device.CPU))
            interpolator.load()
        return ["CPU time on 1 torch thread", *(_compared(weights, interpolator, exp) for exp in (1, 2))]
    finally:
        torch.set_num_threads(threads)
