"""Trees of tensors and plain values as JSON with numbers in place of tensors, and back; nothing is pickled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

_MAX_SLACK = 4
"""How many times more room than elements a tensor's strides may span."""
_DTYPES = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    }
)


class NotResumable(Exception):
    """A run cannot be taken up where it was left; the text says why."""


class Packer:
    """Turns a tree into JSON and a list of tensors; one that occurs twice is listed once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._places: dict[int, int] = {}

    def pack(self, value: Any, what: str) -> Any:
        """Return the value with every container and tensor replaced by an object that names its kind."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._place(value, what)}
        if isinstance(value, BaseOutput) and _is_diffusers(type(value)):
            items = {name: self.pack(item, what) for name, item in value.items()}
            return {"output": class_name(type(value)), "items": items}
        if type(value) in (list, tuple):
            return {type(value).__name__: [self.pack(item, what) for item in value]}
        if type(value) is dict and all(type(name) is str for name in value):
            return {"dict": {name: self.pack(item, what) for name, item in value.items()}}
        raise NotResumable(f"{what} is a {type(value).__name__}, which no checkpoint can hold")

    def _place(self, tensor: Tensor, what: str) -> int:
        if tensor.dtype not in _DTYPES or tensor.is_inference() or tensor.layout is not torch.strided:
            raise NotResumable(f"{what} is a {tensor.dtype} tensor of a kind that no checkpoint can hold")
        place = self._places.setdefault(id(tensor), len(self.tensors))
        if place == len(self.tensors):
            self.tensors.append(tensor)
        return place


def unpack(value: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the value that `Packer.pack` was given.

    Raises:
        TypeError, ValueError, LookupError, AttributeError, RecursionError: It is no packed value.
    """
    if not isinstance(value, dict):
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise TypeError(f"{type(value).__name__} is no packed value")
    if "output" in value:
        kind = output_class(value["output"])
        return kind(**{str(name): unpack(item, tensors) for name, item in value["items"].items()})
    [(name, packed)] = value.items()
    if name == "tensor" and type(packed) is int and packed >= 0:
        return tensors[packed]
    if name in ("list", "tuple") and isinstance(packed, list):
        items = [unpack(item, tensors) for item in packed]
        return items if name == "list" else tuple(items)
    if name == "dict" and isinstance(packed, dict):
        return {key: unpack(item, tensors) for key, item in packed.items()}
    raise TypeError(f"{name!r} is no kind of packed value")


def class_name(kind: type) -> str:
    """Return the name under which `output_class` finds a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def output_class(name: str) -> type[BaseOutput]:
    """Return diffusers' own output class of this name; nothing is imported for it.

    Raises:
        ValueError: There is none.
    """
    waiting: list[type[BaseOutput]] = [BaseOutput]
    while waiting:
        kind = waiting.pop()
        if class_name(kind) == name and _is_diffusers(kind):
            return kind
        waiting += kind.__subclasses__()
    raise ValueError(f"{name!r} is no output of diffusers")


def _is_diffusers(kind: type) -> bool:
    return kind.__module__.startswith("diffusers.")


def strides_of(tensor: Tensor) -> list[int] | None:
    """Return a tensor's strides; None where elements share a place or lie far apart: it is stored row by row then."""
    return None if _span(tensor.shape, tensor.stride()) is None else list(tensor.stride())


def _span(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """Return how many elements a tensor reaches over; None if elements overlap or lie too far apart."""
    span = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1:
            if stride < span:
                return None
            span += stride * (size - 1)
    return span if span <= _MAX_SLACK * max(1, math.prod(shape)) else None


def laid_out(tensor: Tensor, like: Mapping[str, Any], device: torch.device) -> Tensor:
    """Return a tensor in memory of its own: in the object's bytes it lies at an address that may take other kernels."""
    strides, host = like["strides"], like["host"]
    if type(host) is not bool:
        raise TypeError(f"host {host!r}")
    if strides is None:
        strides = torch.empty_like(tensor, memory_format=torch.contiguous_format).stride()
    elif not all(type(stride) is int and stride >= 0 for stride in strides) or _span(tensor.shape, strides) is None:
        raise ValueError(f"strides {strides} of a {tuple(tensor.shape)} tensor")
    place = torch.device("cpu") if host else device
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=place).copy_(tensor)
