"""Wan at tiny size with random weights, and a tokenizer that takes any text."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

_SEED = 20250101
_LATENT_CHANNELS = 16
_TEXT_WIDTH = 32


def tiny_wan() -> Any:
    """Return a pipeline; its weights are the same on every call and the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        networks = {"text_encoder": _text_encoder(), "vae": _vae(), "transformer": tiny_transformer()}
    scheduler: Any = UniPCMultistepScheduler
    pipeline: Any = WanPipeline
    return pipeline(
        tokenizer=byte_tokenizer(),
        scheduler=scheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        **networks,
    )


def _text_encoder() -> Any:
    network: Any = UMT5EncoderModel
    config = UMT5Config(
        vocab_size=320,
        d_model=_TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return network(config).eval()


def _vae() -> Any:
    network: Any = AutoencoderKLWan
    return network(
        base_dim=8,
        z_dim=_LATENT_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    ).eval()


def tiny_transformer() -> Any:
    network: Any = WanTransformer3DModel
    return network(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        text_dim=_TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=96,
        num_layers=2,
        cross_attn_norm=True,
        rope_max_seq_len=256,
    ).eval()


def byte_tokenizer() -> Any:
    """Return a tokenizer of single UTF-8 bytes, which takes any text and needs no vocabulary file."""
    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {piece: number for number, piece in enumerate(special + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pad, end, unknown = special
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, vocabulary[end])]
    )
    wrapper: Any = PreTrainedTokenizerFast
    return wrapper(tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown, model_max_length=512)
