"""What a network returns, by shape: recorded while it runs, and given back as zeros without running it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from vitascope_denoiser.packing import NotResumable, class_name, output_class

_MAX_ELEMENTS = 2**32
"""Of one blank: beyond any latents, and too little to take the machine down."""


def inputs_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the shapes of a network's inputs as text: what the shapes of its outputs depend on."""
    return str([_sizes(value) for value in (*args, *kwargs.values())])


def _sizes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return [_sizes(item) for item in value]
    return value if isinstance(value, bool) else None


def shape_of(value: Any) -> Any:
    """Return what `blank` needs to make something of the same form, as JSON.

    Raises:
        NotResumable: It is nothing that networks are known to return.
    """
    if value is None:
        return None
    if isinstance(value, Tensor):
        return {"sizes": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, BaseOutput):
        return {"output": class_name(type(value)), "items": {name: shape_of(item) for name, item in value.items()}}
    if type(value) in (list, tuple):
        return {type(value).__name__: [shape_of(item) for item in value]}
    raise NotResumable(f"a network returns a {type(value).__name__}")


def blank(shape: Any, device: torch.device) -> Any:
    """Return zeros of a shape that `shape_of` gave.

    Raises:
        NotResumable: It is no such shape.
    """
    try:
        return _blank(shape, device)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise NotResumable(f"the checkpoint records a network's output that cannot be: {error}") from error


def _blank(shape: Any, device: torch.device) -> Any:
    if shape is None:
        return None
    if "sizes" in shape:
        sizes, dtype = shape["sizes"], getattr(torch, shape["dtype"])
        if not isinstance(dtype, torch.dtype) or math.prod(sizes) > _MAX_ELEMENTS:
            raise ValueError(f"{sizes} of {dtype}")
        return torch.zeros(sizes, dtype=dtype, device=device)
    if "output" in shape:
        items = {name: _blank(item, device) for name, item in shape["items"].items()}
        return output_class(shape["output"])(**items)
    [(name, items)] = shape.items()
    if name not in ("list", "tuple"):
        raise ValueError(f"{name!r} is no kind of output")
    blanks = [_blank(item, device) for item in items]
    return blanks if name == "list" else tuple(blanks)
