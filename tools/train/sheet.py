"""``python -m tools.train.sheet``: draw the documentation's pictures again, with the packed models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tools.train import evaluation
from tools.train.enlargement import enlarged
from tools.train.fidelity import as_bytes
from vitascope_frames.chunk import Frames
from vitascope_models.catalogue import DEMO, DEMO_ESRGAN, DEMO_STRIPES
from vitascope_upscaler.settings import UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler
from vitascope_weights.device import Device

PROMPTS = (
    "a red circle moves right on a blue background",
    "a yellow star grows on a purple background",
    "a white square slides to the left, green background",
)
SEED = 7
_EVERY = 4
_GAP = 4
_QUALITY = 90


def main(folder: Path) -> None:
    """Write both pictures: clips without and with the adapter, of the same prompts and the same seed."""
    pipe = evaluation.opened(evaluation.packed(DEMO))
    upscaler = Upscaler(UpscalerSettings(model_path=DEMO_ESRGAN, device=Device.CPU))
    _sheet(pipe, upscaler).save(folder / "demo.jpg", quality=_QUALITY)
    pipe.load_lora_weights(evaluation.packed(DEMO_STRIPES))
    _sheet(pipe, upscaler).save(folder / "demo-stripes.jpg", quality=_QUALITY)


def _sheet(pipe: Any, upscaler: Upscaler) -> Image.Image:
    rows = [_row(pipe, upscaler, prompt) for prompt in PROMPTS]
    return Image.fromarray(_spaced([_spaced(list(row), axis=1) for row in rows], axis=0))


def _row(pipe: Any, upscaler: Upscaler, prompt: str) -> Frames:
    """Return every fourth frame of a clip, uint8 (N, 128, 128, 3)."""
    clip = evaluation.clip(pipe, prompt, SEED)
    return enlarged(upscaler, as_bytes(clip[:, ::_EVERY].transpose(0, 1)), scale=2)


def _spaced(pictures: Sequence[Frames], *, axis: int) -> Frames:
    """Return pictures side by side or one below the other, white between them."""
    gap = [(0, _GAP if place == axis else 0) for place in range(2)] + [(0, 0)]
    return np.concatenate([np.pad(each, gap, constant_values=255) for each in pictures], axis=axis)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train.sheet", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/pictures"), help="by default docs/pictures")
    torch.set_num_threads(2)
    main(parser.parse_args().folder)
