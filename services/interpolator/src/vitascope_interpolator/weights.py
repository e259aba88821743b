"""Checkpoints of RIFE, read strictly: what does not fit the network is an error that names it."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitascope_core.errors import InvalidWeights
from vitascope_interpolator.architecture import RIFE_4_22_LITE, RIFE_4_25, SUPPORTED, Architecture
from vitascope_interpolator.versions import likely_version

_PARALLEL = "module."
"""Put before every name by the data-parallel training of the public files."""

# What torch.load raises on damaged files is not documented; found by damaging some at random.
_UNREADABLE = (
    *(OSError, pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, LookupError),
    *(AssertionError, AttributeError, TypeError, OverflowError, struct.error),
)

_TRAINING_ONLY = ("teacher.", "caltime.")
_NAMED = 5
"""How many tensors an error names of each kind."""


def load_weights(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the version and the tensors of a checkpoint, on the CPU.

    Raises:
        InvalidWeights: It cannot be read, or is of no supported version; the tensors that do not fit are named.
    """
    tensors = _own(path, _read(path))
    return _architecture(path, tensors), tensors


def _read(path: Path) -> Mapping[str, Tensor]:
    """Return a file's tensors. Code in a pickle is never run."""
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise InvalidWeights(f"{path} cannot be read as tensors: {reason}") from error
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise InvalidWeights(f"{path} holds no tensors by name")
    if odd := sorted(name for name, value in content.items() if not _is_floats(value)):
        raise InvalidWeights(f"{path} holds other things than floating-point tensors: {_listed(odd)}")
    return content


def _is_floats(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _own(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the network itself, under their own names."""
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(_PARALLEL)
        if bare.startswith(_TRAINING_ONLY):
            continue
        if bare in own:
            raise InvalidWeights(f"{path} holds {bare} twice, with and without {_PARALLEL}")
        own[bare] = tensor
    return own


def _architecture(path: Path, tensors: Mapping[str, Tensor]) -> Architecture:
    """Return the version whose tensors these are.

    Raises:
        InvalidWeights: None of the supported ones.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = RIFE_4_25 if any(name.startswith("block4.") for name in shapes) else RIFE_4_22_LITE
    expected = wanted.shapes()
    kinds = {
        "missing": expected.keys() - shapes.keys(),
        "not of it": shapes.keys() - expected.keys(),
        "of another shape": {
            f"{name} {shapes[name]} instead of {expected[name]}"
            for name in expected.keys() & shapes.keys()
            if shapes[name] != expected[name]
        },
    }
    faults = [f"{kind}: {_listed(sorted(names))}" for kind, names in kinds.items() if names]
    if not faults:
        return wanted
    version = likely_version(shapes)
    looks = f"RIFE {version}" if version else "no version of RIFE that is known"
    supported = " and ".join(architecture.name for architecture in SUPPORTED)
    raise InvalidWeights(
        f"{path} does not fit RIFE {wanted.name}; {'; '.join(faults)}. It looks like {looks}; supported are {supported}"
    )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = len(shown) - _NAMED
    return ", ".join(shown[:_NAMED]) + (f" and {more} more" if more > 0 else "")
