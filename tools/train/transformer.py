"""The demonstration model's transformer: Wan's, small, for clips from texts and first frames and for single pictures.

Source: Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models" (arXiv:2503.20314); flow matching after
Lipman et al. (arXiv:2210.02747); a first frame by timesteps of its own, as in Wan 2.2 TI2V-5B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.train import autoencoder
from tools.train.fidelity import read_weights
from tools.train.scenes import Scene, caption, draw, moments
from tools.train.text import LONGEST, WIDTH, blurred, embed, encoder, tokenizer
from tools.train.training import Recipe, Training, halves_pay

RECIPE = Recipe(steps=24_000, rate=1.5e-3, warm_up=300, average=0.9985, seed=21)
GOING_ON = Recipe(steps=4600, rate=1.2e-3, warm_up=150, average=0.9985, seed=25)
"""For weights that were trained before."""

BATCH = 32
CLIPS = 8_000
STATE = "transformer.pt"

_TIMESTEPS = 1000
_NOISY, _SPREAD = 0.7, 1.2
"""Mean and deviation of the noise's logit: most is learned in the middle, and a little more where noise prevails."""
_PADDED = 512
"""Tokens that Wan's pipelines pad every prompt to."""
_SINGLE, _FROM_FRAME = 0.15, 0.3
_WITHOUT_TEXT, _BLURRED = 0.1, 0.02
_FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """What is trained on: normalised latents, float16 (N, 16, 5, 8, 8), and the scenes that they show."""

    latents: Tensor
    scenes: list[Scene]


class Writer(nn.Module):
    """What learns together: the transformer and the text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = network()
        self.text_encoder = encoder()
        self.tokenizer = tokenizer()


class PaddedCrossAttention:
    """Wan's attention to a text, where the last token stands for all the padding that pipelines put behind it.

    Many equal keys weigh as much as one whose logit is greater by the logarithm of their number.
    """

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any) -> Tensor:
        """Return float (N, tokens, channels)."""
        heads = attn.heads
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (heads, -1)).transpose(1, 2)
        key = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(2, (heads, -1)).transpose(1, 2)
        value = attn.to_v(encoder_hidden_states).unflatten(2, (heads, -1)).transpose(1, 2)
        bias = torch.zeros(LONGEST, device=query.device, dtype=query.dtype)
        bias[-1] = math.log(_PADDED - LONGEST + 1)
        seen = F.scaled_dot_product_attention(query, key.type_as(query), value.type_as(query), attn_mask=bias[None])
        out: Tensor = attn.to_out[0](seen.transpose(1, 2).flatten(2))
        return out


def network() -> Any:
    """Return the transformer with random weights."""
    kind: Any = WanTransformer3DModel
    return kind(
        patch_size=(1, 2, 2),
        num_attention_heads=6,
        attention_head_dim=32,
        in_channels=autoencoder.CHANNELS,
        out_channels=autoencoder.CHANNELS,
        text_dim=WIDTH,
        freq_dim=256,
        ffn_dim=512,
        num_layers=5,
        cross_attn_norm=True,
        rope_max_seq_len=256,
    )


def encoded_clips(file: Path, vae: Any, scenes: list[Scene]) -> Clips:
    """Return scenes as clips that can be trained on, encoded once and kept in a file."""
    if file.exists():
        return Clips(torch.load(file, weights_only=True), scenes)
    parts = []
    for first in range(0, len(scenes), 8):
        clips = draw(scenes[first : first + 8], moments()).to(vae.device)
        parts.append(normalised(vae, autoencoder.encode(vae, clips)).half().cpu())
    latents = torch.cat(parts)
    torch.save(latents, file)
    return Clips(latents, scenes)


def normalised(vae: Any, latents: Tensor) -> Tensor:
    """Return latents as the transformer sees them: mean 0 in each channel, and deviation 1 over all of them."""
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=latents.device).view(shape)
    return (latents - mean) / torch.tensor(vae.config.latents_std, device=latents.device).view(shape)


def train(
    folder: Path, vae: Any, device: str = "cpu", recipe: Recipe | None = None, packed: Path | None = None
) -> Writer:
    """Train, or go on, and return the average of what was learned.

    Args:
        folder: Where the state is kept.
        vae: The trained autoencoder.
        device: Where it learns.
        recipe: How long and how fast; None for `GOING_ON` with weights from before, and `RECIPE` without.
        packed: A pipeline that was trained before; its weights are the first ones. Random ones without it.
    """
    clips = encoded_clips(folder / "latents.pt", vae, autoencoder.random_scenes(CLIPS, Random(31)))
    training = Training.begun(
        folder / STATE, lambda: _first(packed).to(device), recipe or (GOING_ON if packed else RECIPE)
    )
    learn(training, clips, compiled=True)
    return training.averaged()


def _first(packed: Path | None) -> Writer:
    writer = Writer()
    if packed is not None:
        for part in ("transformer", "text_encoder"):
            (file,) = (packed / part).glob("*.safetensors")
            lacking, unknown = getattr(writer, part).load_state_dict(read_weights(file), strict=False)
            # The encoder's table of words has two names, of which one is kept.
            if unknown or not set(lacking) <= {"encoder.embed_tokens.weight"}:
                raise ValueError(f"{file} does not fit: {[*lacking, *unknown]}")
    return writer


def learn(training: Training[Writer], clips: Clips, *, compiled: bool = False) -> None:
    """Take the training's steps on clips; ``compiled`` pays for long trainings: each step takes a third less."""
    writer = training.network
    writer.transformer.train()
    cross = PaddedCrossAttention()
    own = {block.attn2: block.attn2.processor for block in writer.transformer.blocks}
    for attention in own:
        attention.set_processor(cross)
    for block in writer.transformer.blocks if compiled else ():
        block.compile(dynamic=False)  # clips and single pictures have a graph each
    try:
        # The CPU's fused attention takes three times as long backwards.
        with sdpa_kernel([SDPBackend.MATH] if writer.transformer.device.type == "cpu" else list(_FUSED)):
            training.run(lambda _, random: flow_loss(writer, clips, random))
    finally:
        for attention, processor in own.items():
            attention.set_processor(processor)


def flow_loss(writer: Writer, clips: Clips, random: Random) -> Tensor:
    """Return the error of the predicted velocity from clean latents to noise."""
    device = writer.transformer.device
    chosen = [random.randrange(len(clips.scenes)) for _ in range(BATCH)]
    clean = clips.latents[chosen].float().to(device)
    single = random.random() < _SINGLE
    if single:
        clean = clean[:, :, :1]
    texts = [_text(clips.scenes[place], random, single=single) for place in chosen]
    sigma = torch.sigmoid(_NOISY + _SPREAD * torch.randn(len(chosen), 1, 1, 1, 1, device=device))
    timestep = sigma.flatten() * _TIMESTEPS
    if not single and random.random() < _FROM_FRAME:
        sigma = sigma.expand(-1, 1, *clean.shape[2:]).clone()
        sigma[:, :, 0] = 0
        # One timestep for each token of 2 x 2 latents; where all are equal, one a clip is the same and much less work.
        timestep = sigma[:, 0, :, ::2, ::2].flatten(1) * _TIMESTEPS
    noise = torch.randn_like(clean)
    noisy = torch.lerp(clean, noise, sigma)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=halves_pay(device)):
        embedded = embed(writer.tokenizer, writer.text_encoder, texts)
        velocity = writer.transformer(noisy, timestep, embedded, return_dict=False)[0]
    wrong = (velocity.float() - (noise - clean)).square()
    counted = (sigma > 0).float()
    loss: Tensor = (wrong * counted).sum() / counted.expand_as(wrong).sum()
    return loss


def _text(scene: Scene, random: Random, *, single: bool) -> str:
    if random.random() < _WITHOUT_TEXT:
        return ""
    return blurred(caption(scene.what, random, still=single), _BLURRED)
