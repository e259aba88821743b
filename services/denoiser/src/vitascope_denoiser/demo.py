"""The embedded model: a small text-to-video pipeline that runs anywhere, made in code instead of downloaded.

For now its weights are random, so it makes noise; trained weights will replace them behind the same name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import platformdirs
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

DEMO_VERSION = "1"
"""Version of the weights; a new one gets a folder of its own."""

DEMO_NOTE = "The demo model has random weights: it makes coloured noise, to try the service without a download."

_SEED = 20250101
_LATENT_CHANNELS = 16
_TEXT_WIDTH = 32


def demo_folder(cache: Path | None = None) -> Path:
    """Return the demo model's folder in diffusers' format, made when it is not there.

    Any number of processes may call it at once: each builds in a folder of its own, the first rename wins.

    Args:
        cache: Where it lies; None for the user's cache folder.
    """
    parent = cache if cache is not None else platformdirs.user_cache_path("vitascope", appauthor=False)
    folder = parent / f"demo-{DEMO_VERSION}"
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".demo-", dir=parent))
    try:
        build_demo().save_pretrained(draft, safe_serialization=True)
        os.rename(draft, folder)  # noqa: PTH104 - Path.rename replaces on some platforms; this must not
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def build_demo() -> Any:
    """Return the demo pipeline; its weights are the same on every call and the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        networks = {"text_encoder": _text_encoder(), "vae": _vae(), "transformer": _transformer()}
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


def _transformer() -> Any:
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
