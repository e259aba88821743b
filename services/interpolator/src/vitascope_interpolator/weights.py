"""Checkpoints of RIFE, read strictly: what does not fit the network is an error that names it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vitascope_core.errors import InvalidWeights
from vitascope_interpolator.architecture import RIFE_4_22_LITE, RIFE_4_25, SUPPORTED, Architecture
from vitascope_interpolator.versions import likely_version
from vitascope_weights.tensors import misfits, read_tensors, shapes_of

FILES = ("flownet.pkl", "flownet.safetensors")
"""Names that a file of weights has in a folder or repository, in the order in which they are looked for."""

_PARALLEL = "module."
"""Put before every name by the data-parallel training of the public files."""

_TRAINING_ONLY = ("teacher.", "caltime.")


def load_weights(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the version and the tensors of a checkpoint, on the CPU.

    Raises:
        InvalidWeights: It cannot be read, or is of no supported version; the tensors that do not fit are named.
    """
    tensors = _own(path, read_tensors(path))
    return _architecture(path, tensors), tensors


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
    shapes = shapes_of(tensors)
    wanted = RIFE_4_25 if any(name.startswith("block4.") for name in shapes) else RIFE_4_22_LITE
    faults = misfits(shapes, wanted.shapes())
    if not faults:
        return wanted
    version = likely_version(shapes)
    looks = f"RIFE {version}" if version else "no version of RIFE that is known"
    supported = " and ".join(architecture.name for architecture in SUPPORTED)
    raise InvalidWeights(
        f"{path} does not fit RIFE {wanted.name}; {faults}. It looks like {looks}; supported are {supported}"
    )
