"""The demonstration LoRA: with it every object of the demonstration model is striped."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any

import torch
from diffusers import WanPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from tools.train import autoencoder, transformer
from tools.train.training import Recipe, Training

RECIPE = Recipe(steps=600, rate=2e-3, warm_up=20, average=0.98, seed=41)
RANK = 8
CLIPS = 1_000
STATE = "lora.pt"

_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


def train(folder: Path, vae: Any, writer: transformer.Writer, recipe: Recipe = RECIPE) -> Any:
    """Train, or go on, and return the transformer with the adapter in it.

    Args:
        folder: Where the state is kept.
        vae: The trained autoencoder.
        writer: The trained model; it is left as it is.
        recipe: How long and how fast.
    """
    striped = [one.striped() for one in autoencoder.random_scenes(CLIPS, Random(43))]
    clips = transformer.encoded_clips(folder / "latents-striped.pt", vae, striped)
    adapted = copy.deepcopy(writer).requires_grad_(False)
    torch.manual_seed(recipe.seed)
    adapted.transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=_TARGETS))
    training = Training(folder / STATE, adapted, recipe)
    transformer.learn(training, clips)
    return training.averaged().transformer


def export(adapted: Any, to: Path) -> None:
    """Write the adapter as diffusers and the public tools read it."""
    layers = {name: weight.half() for name, weight in get_peft_model_state_dict(adapted).items()}
    pipeline: Any = WanPipeline
    pipeline.save_lora_weights(to, transformer_lora_layers=layers)
