"""Real-ESRGAN as the upscaler runs it against the literal procedure, in CPU time on one thread (RRDB: 1.15 times)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench import literal_esrgan, literal_rife
from vitascope_core.plan import UpscaleOptions
from vitascope_frames.chunk import Chunk
from vitascope_upscaler.architecture import Architecture, Compact, Rrdb
from vitascope_upscaler.settings import UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler
from vitascope_weights.device import Device

SCALE = 4
ROUNDS = 3


def _cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _compared(architecture: Architecture, height: int, width: int, least: str = "") -> str:
    weights = literal_esrgan.seeded_weights(architecture.shapes(), seed=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x4.pth"
        torch.save({"params_ema": weights}, path)
        upscaler = Upscaler(UpscalerSettings(str(path), scales=(float(SCALE),), device=Device.CPU))
        upscaler.load()
        frames = literal_rife.moving_clip(1, height, width)
        chunk = Chunk(frames, 0, 0, 0, last=True, fps=Fraction(16))
        ours, literal = [], []
        for _ in range(ROUNDS):  # in turns: what else the machine does meets both
            literal.append(_cpu_seconds(lambda: literal_esrgan.upscale(weights, frames, SCALE)))
            ours.append(_cpu_seconds(lambda: upscaler.apply(chunk, UpscaleOptions(SCALE))))
    ratio = statistics.median(before / after for before, after in zip(literal, ours, strict=True))
    return (
        f"{architecture.name}, {height}x{width}   {statistics.median(ours) * 1e3:.0f} ms a frame, literally "
        f"{statistics.median(literal) * 1e3:.0f} ms   ratio {ratio:.2f}{least}"
    )


def _compiled(architecture: Architecture, height: int, width: int) -> str:
    frames = literal_rife.moving_clip(1, height, width)
    chunk = Chunk(frames, 0, 0, 0, last=True, fps=Fraction(16))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x4.pth"
        torch.save({"params": literal_esrgan.seeded_weights(architecture.shapes(), seed=1)}, path)
        settings = UpscalerSettings(str(path), scales=(float(SCALE),), device=Device.CPU)
        plain, compiled = Upscaler(settings), Upscaler(replace(settings, compile=True))
        plain.load()
        begun = time.perf_counter()
        compiled.load()
        loading = time.perf_counter() - begun
        ratio = statistics.median(
            _cpu_seconds(lambda: plain.apply(chunk, UpscaleOptions(SCALE)))
            / _cpu_seconds(lambda: compiled.apply(chunk, UpscaleOptions(SCALE)))
            for _ in range(ROUNDS)
        )
    return f"{architecture.name}, {height}x{width}   not compiled to compiled, in {loading:.0f} s, ratio {ratio:.2f}"


async def measure() -> list[str]:
    """Return the lines of the report."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            "CPU time on 1 torch thread",
            _compared(Rrdb(64, 23, 32, 1, 2), 96, 160, " (at least 1.15)"),
            _compared(Rrdb(64, 6, 32, 1, 2), 128, 224, " (at least 1.15)"),
            _compared(Compact(64, 16, 4), 256, 448),
            _compiled(Compact(64, 16, 4), 256, 448),
        ]
    finally:
        torch.set_num_threads(threads)
