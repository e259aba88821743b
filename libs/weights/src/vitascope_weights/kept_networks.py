"""The networks that are loaded, by the file of their weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from vitascope_core.errors import InvalidSettings, InvalidWeights
from vitascope_weights.device import Device

N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class _Loaded(Generic[N]):
    path: Path
    changed_ns: int
    network: N

    @property
    def outdated(self) -> bool:
        try:
            return self.path.stat().st_mtime_ns != self.changed_ns
        except OSError:
            return False  # What is loaded is worth more than the file.


class KeptNetworks(Generic[N]):
    """Loads networks when they are first needed and keeps some. Not for two threads at once.

    Args:
        load: Makes the network from a file of weights.
        kept: How many are kept; the one that was used longest ago makes room.
    """

    def __init__(self, load: Callable[[Path], N], kept: int) -> None:
        self._load = load
        self._kept = kept
        self._loaded: OrderedDict[Path, _Loaded[N]] = OrderedDict()

    def __contains__(self, path: Path) -> bool:
        return path in self._loaded

    def get(self, path: Path) -> N:
        """Return the network of a file. One that has changed since is loaded again, one that is gone is not missed.

        Raises:
            InvalidWeights: The file cannot be read, or from ``load``.
        """
        known = self._loaded.get(path)
        if known is None or known.outdated:
            # Before the next one is there, or the device would hold one more than it should.
            self._loaded.pop(path, None)
            while len(self._loaded) >= self._kept:
                self._loaded.popitem(last=False)
            try:
                changed_ns = path.stat().st_mtime_ns
            except OSError as error:
                raise InvalidWeights(f"{path} cannot be read: {error.strerror}") from error
            self._loaded[path] = known = _Loaded(path, changed_ns, self._load(path))
        self._loaded.move_to_end(path)
        return known.network


def torch_device(device: Device) -> torch.device:
    """Return the device that a setting stands for.

    Raises:
        InvalidSettings: There is no GPU.
    """
    there = torch.cuda.is_available()
    if device is Device.CUDA and not there:
        raise InvalidSettings("device is cuda, but there is no GPU that PyTorch can use")
    return torch.device("cuda" if there and device is not Device.CPU else "cpu")
