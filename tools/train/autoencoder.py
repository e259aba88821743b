"""The demonstration model's VAE: Wan's causal video autoencoder, small; it divides space by 8 and time by 4."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from diffusers import AutoencoderKLWan
from torch import Tensor

from tools.train.drawings import View
from tools.train.scenes import SIDE, Scene, draw, moments, scene, split
from tools.train.training import Recipe, Training, halves_pay

CHANNELS = 16
"""Of the latents."""

RECIPE = Recipe(steps=10_000, rate=2e-3, warm_up=100, seed=11)
REFINEMENT = Recipe(steps=6000, rate=1e-3, warm_up=100, seed=12)

_NOISE = 0.1
"""Deviation of the posterior, everywhere: a fixed one learns faster from the start than one that is learned too."""
_LITTLE_NOISE = 0.05
_SIZE = 5e-4
"""Weight of the latents' squares, which keeps them from growing out of the noise."""
_OUTLINE = 4.0
"""How much more pixels near an outline count."""
_STRIPED = 0.3


def network() -> Any:
    """Return the autoencoder with random weights; the latents' mean and deviation are filled in after training."""
    kind: Any = AutoencoderKLWan
    vae = kind(
        base_dim=16,
        decoder_base_dim=24,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
    )
    with torch.no_grad():
        vae.quant_conv.weight[CHANNELS:] = 0
        vae.quant_conv.bias[CHANNELS:] = 2 * math.log(_NOISE)
    return vae


def train(folder: Path, device: str = "cpu", recipe: Recipe = RECIPE) -> Any:
    """Train, or go on, and return the autoencoder with its latents' statistics."""
    training = Training.begun(folder / "vae.pt", lambda: network().to(device), recipe)
    vae = training.network
    training.run(lambda step, random: _loss(vae, _batch(step, random).to(device), _NOISE))
    learned = training.averaged()
    _note_statistics(learned)
    return learned


def refine(folder: Path, vae: Any, recipe: Recipe = REFINEMENT) -> Any:
    """Train the decoder further, or go on, and return the autoencoder with it.

    The latents stay as they are, so the transformer may learn meanwhile.
    """
    refined = copy.deepcopy(vae).requires_grad_(False)
    for part in (refined.decoder, refined.post_quant_conv):
        part.requires_grad_(True)
    training = Training(folder / "decoder.pt", refined, recipe)
    training.run(lambda step, random: _loss(refined, _batch(step, random).to(refined.device), _LITTLE_NOISE))
    return training.averaged()


def _loss(vae: Any, clips: Tensor, noise: float) -> Tensor:
    """Return the error of clips, float32 (N, 3, T, H, W) in 0..1, that come back from noisy latents."""
    clips = clips * 2 - 1
    with torch.autocast(clips.device.type, dtype=torch.bfloat16, enabled=halves_pay(clips.device)):
        latents = vae.encode(clips).latent_dist.mode().float()
        drawn = vae.decode(latents + noise * torch.randn_like(latents)).sample
    wrong = drawn.float() - clips
    missed = (wrong.abs() + wrong.square()) * _importance(clips)
    loss: Tensor = missed.mean() + _SIZE * latents.square().mean()
    return loss


def random_scenes(count: int, random: Random, *, striped: float = 0.0) -> list[Scene]:
    """Return scenes of the combinations that are trained on, a share of them striped."""
    known, _ = split()
    scenes = [scene(random.choice(known), random) for _ in range(count)]
    return [one.striped() if random.random() < striped else one for one in scenes]


def _batch(step: int, random: Random) -> Tensor:
    """Return clips: parts of pictures for most steps, whole ones and single pictures between them."""
    if step % 8 == 3:
        return draw(random_scenes(8, random, striped=_STRIPED), [random.random()])
    if step % 8 == 7:
        return draw(random_scenes(2, random, striped=_STRIPED), moments())
    first, side = random.randrange(9), SIDE // 2
    view = View(SIDE, random.randrange(side + 1), random.randrange(side + 1), side, side)
    return draw(random_scenes(8, random, striped=_STRIPED), moments()[first : first + 9], view)


@torch.no_grad()
def encode(vae: Any, clips: Tensor) -> Tensor:
    """Return the most likely latents, float32 (N, 16, t, h, w), of clips, float32 (N, 3, T, H, W) in 0..1.

    They are in the VAE's own scale.
    """
    latents: Tensor = vae.encode(clips * 2 - 1).latent_dist.mode()
    return latents.float()


def _importance(clips: Tensor) -> Tensor:
    """Return weights, float32 (N, 1, T, H, W): what is near an outline counts more, since most of a clip is flat."""
    frames = clips.transpose(1, 2).flatten(0, 1)
    low, high = -F.max_pool2d(-frames, 7, 1, 3), F.max_pool2d(frames, 7, 1, 3)
    near = ((high - low).amax(1, keepdim=True) > 0.2).float()
    return (1 + _OUTLINE * near).reshape(len(clips), -1, *near.shape[1:]).transpose(1, 2)


def _note_statistics(vae: Any) -> None:
    random = Random(7)
    latents = torch.cat([encode(vae, draw(random_scenes(8, random), moments()).to(vae.device)) for _ in range(24)])
    flat = latents.transpose(0, 1).flatten(1)
    # One deviation for all: a channel that hardly varies hardly shows, and is not to weigh as much as those that carry
    # colour and outline.
    deviation = float(flat.var(1).mean().sqrt())
    vae.register_to_config(latents_mean=flat.mean(1).tolist(), latents_std=[deviation] * CHANNELS)


@torch.no_grad()
def fidelity(vae: Any, clips: int = 32) -> float:
    """Return the PSNR in dB of held-out clips that are encoded and decoded."""
    random = Random(99)
    _, held_out = split()
    scenes = [scene(held_out[place], random) for place in range(clips)]
    wrong = []
    for one in scenes:
        clip = draw([one], moments()).to(vae.device)
        again = vae.decode(encode(vae, clip)).sample.float().clamp(-1, 1) * 0.5 + 0.5
        wrong.append(F.mse_loss(again, clip))
    return float(-10 * torch.log10(torch.stack(wrong).mean()))
