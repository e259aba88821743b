"""How strongly the general compact network removes noise: a twin keeps it, and what lies between is a blend."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from vitascope_core.errors import InvalidWeights
from vitascope_upscaler.architecture import Architecture
from vitascope_upscaler.checkpoints import load_checkpoint
from vitascope_upscaler.settings import GENERAL

_TWIN = "realesr-general-wdn-x4v3"


def twin_of(source: str) -> str | None:
    """Return the name of the twin's weights, beside those of the network itself; None for other networks."""
    place = source.rfind(GENERAL)
    return None if place < 0 else source[:place] + _TWIN + source[place + len(GENERAL) :]


def load_blend(path: Path, twin: Path, strength: float) -> tuple[Architecture, dict[str, Tensor]]:
    """Return the network between two, and its tensors.

    Args:
        path: The network that removes noise.
        twin: The one that keeps it.
        strength: 1 for the first alone, 0 for the second.

    Raises:
        InvalidWeights: One of the files is of no supported network, or they are of different ones.
    """
    architecture, tensors = load_checkpoint(path)
    other, keeping = load_checkpoint(twin)
    if other != architecture:
        raise InvalidWeights(f"{path} and {twin} are of different networks: {architecture.name} and {other.name}")
    return architecture, {
        name: keeping[name].float().lerp(tensor.float(), strength) for name, tensor in tensors.items()
    }
