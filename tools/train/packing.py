"""From trainings to the package of demonstration models: half precision, the public layouts, checksums."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from diffusers import UniPCMultistepScheduler, WanPipeline
from torch import nn

from tools.train.transformer import Writer
from vitascope_models.catalogue import CHECKSUMS, checksums

FLOW_SHIFT = 2.0


def pack_pipeline(vae: nn.Module, writer: Writer, to: Path) -> None:
    """Write the video model as a diffusers folder in float16."""
    kind: Any = WanPipeline
    scheduler: Any = UniPCMultistepScheduler
    pipe = kind(
        tokenizer=writer.tokenizer,
        text_encoder=_halved(writer.text_encoder),
        vae=_halved(vae),
        transformer=_halved(writer.transformer),
        scheduler=scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT),
        expand_timesteps=True,
    )
    pipe.save_pretrained(to, safe_serialization=True)
    _forget_origin(to)


def _halved(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).half()


def _forget_origin(pipeline: Path) -> None:
    """Take out of a pipeline's configurations where on this machine their networks were loaded from."""
    for file in pipeline.glob("*/config.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def note_checksums(folder: Path) -> None:
    """Write down the checksum of every file of the package."""
    content = json.dumps(checksums(folder), indent=1, sort_keys=True)
    (folder / CHECKSUMS).write_text(content + "\n", encoding="utf-8")
