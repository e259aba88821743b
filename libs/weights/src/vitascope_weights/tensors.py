"""Checkpoints as tensors by name, and what is said of those that do not fit."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitascope_core.errors import InvalidWeights

_NAMED = 5
"""How many tensors an error names of each kind."""

# What torch.load raises on damaged files is not documented; found by damaging some at random.
_UNREADABLE = (
    *(OSError, pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, LookupError),
    *(AssertionError, AttributeError, TypeError, OverflowError, struct.error),
)

Shapes = Mapping[str, tuple[int, ...]]


def read_tensors(path: Path, wrappers: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return a checkpoint's tensors, on the CPU. Code in a pickle is never run.

    Args:
        path: A pickle as PyTorch writes it, or ``.safetensors``.
        wrappers: Names under which the tensors may lie together; the first that is there is taken, without any of them
            the tensors lie bare.

    Raises:
        InvalidWeights: It cannot be read, or holds something else.
    """
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise InvalidWeights(f"{path} cannot be read as tensors: {reason}") from error
    if isinstance(content, Mapping):
        content = next((content[name] for name in wrappers if name in content), content)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise InvalidWeights(f"{path} holds no tensors by name")
    if odd := sorted(name for name, value in content.items() if not _is_floats(value)):
        raise InvalidWeights(f"{path} holds other things than floating-point tensors: {listed(odd)}")
    return dict(content)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def misfits(seen: Shapes, expected: Shapes) -> str:
    """Say which tensors are missing, too many or of another shape; "" if all fit."""
    kinds = {
        "missing": expected.keys() - seen.keys(),
        "not of it": seen.keys() - expected.keys(),
        "of another shape": {
            f"{name} {seen[name]} instead of {expected[name]}"
            for name in expected.keys() & seen.keys()
            if seen[name] != expected[name]
        },
    }
    return "; ".join(f"{kind}: {listed(sorted(names))}" for kind, names in kinds.items() if names)


def listed(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    shown = list(names)
    more = len(shown) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_floats(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
