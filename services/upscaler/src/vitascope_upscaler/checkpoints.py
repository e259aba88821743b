"""Checkpoints of Real-ESRGAN, read strictly: what does not fit is an error that names it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from vitascope_core.errors import InvalidWeights
from vitascope_upscaler.architecture import Architecture
from vitascope_upscaler.detection import detect
from vitascope_upscaler.key_styles import todays_names
from vitascope_weights.tensors import listed, read_tensors, shapes_of
from vitascope_weights.weight_file import find_weights

_WRAPPERS = ("params_ema", "params")
"""Where training leaves the tensors: the average over the last steps first."""

_PARALLEL = "module."
"""Put before every name by data-parallel training."""

_BY_SCALE = (2, 4, 8)
"""Enlargements that the default repository has a network of its own for."""


def checkpoint_for(source: str, scale: float) -> Path:
    """Return the file whose network enlarges best by ``scale``; see `find_weights`.

    Folders and repositories hold ``RealESRGAN_x4.pth`` and perhaps ones for 2 and 8; all other scales are made from x4.

    Raises:
        InvalidWeights: There is none.
    """
    own = [names_of(int(scale))] if scale in _BY_SCALE and scale != 4 else []
    return find_weights(source, *own, names_of(4))


def names_of(scale: int) -> tuple[str, str]:
    """Return what the file of weights for a scale may be called."""
    return f"RealESRGAN_x{scale}.pth", f"RealESRGAN_x{scale}.safetensors"


def load_checkpoint(path: Path) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the network and the tensors of a checkpoint under today's names, on the CPU.

    Raises:
        InvalidWeights: It cannot be read, or is of no supported network.
    """
    tensors = _bare(path, read_tensors(path, _WRAPPERS))
    names = todays_names(tensors)
    if len(set(names.values())) < len(names):
        raise InvalidWeights(f"{path} holds tensors twice, under old and new names")
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    try:
        return detect(shapes_of(renamed)), renamed
    except InvalidWeights as error:
        raise InvalidWeights(f"{path}: {error}") from error


def _bare(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if twice := sorted(name for name in tensors if _PARALLEL + name in tensors):
        raise InvalidWeights(f"{path} holds tensors twice, with and without {_PARALLEL}: {listed(twice)}")
    return {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
