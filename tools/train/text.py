"""How the demonstration model reads: a tokenizer of whole words and a small UMT5 encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from tools.train.scenes import words

WIDTH = 64
LONGEST = 24
"""Tokens of a caption in training, with at least one of padding."""

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"


def tokenizer() -> Any:
    """Return a tokenizer of the captions' words; any other word is one unknown token, so every text can be read."""
    vocabulary = {word: number for number, word in enumerate([_PAD, _END, _UNKNOWN, ",", ".", *words()])}
    inner = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=_UNKNOWN))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, vocabulary[_END])])
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=inner, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN, model_max_length=512)


def encoder() -> Any:
    """Return the text encoder with random weights."""
    kind: Any = UMT5EncoderModel
    config = UMT5Config(
        vocab_size=128,
        d_model=WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return kind(config)


def embed(reader: Any, network: Any, captions: Sequence[str]) -> Tensor:
    """Return float32 (N, LONGEST, WIDTH): the encoder's output, zero behind each caption's end, as Wan's pipelines do.

    Raises:
        ValueError: A caption has too many words.
    """
    taken = reader(list(captions), padding="max_length", max_length=LONGEST, truncation=False, return_tensors="pt")
    numbers, mask = taken.input_ids.to(network.device), taken.attention_mask.to(network.device)
    if numbers.shape[1] > LONGEST or bool(mask[:, -1].any()):
        raise ValueError(f"captions must have at most {LONGEST - 2} words")
    hidden: Tensor = network(numbers, mask).last_hidden_state
    embedded: Tensor = hidden.float() * mask.unsqueeze(-1)
    return embedded


def blurred(caption: str, share: float, generator: torch.Generator | None = None) -> str:
    """Return the caption with a share of its words replaced by ones that are not known."""
    dice = torch.rand(len(caption.split()), generator=generator)
    return " ".join("…" if roll < share else word for word, roll in zip(caption.split(), dice.tolist(), strict=True))
