"""The networks that are loaded, by the name of their weights."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from vitascope_core.errors import InvalidSettings, InvalidWeights
from vitascope_interpolator.network import Network
from vitascope_interpolator.settings import Device
from vitascope_interpolator.weight_file import find_weights
from vitascope_interpolator.weights import load_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loaded:
    path: Path
    changed_ns: int
    network: Network

    @property
    def outdated(self) -> bool:
        try:
            return self.path.stat().st_mtime_ns != self.changed_ns
        except OSError:
            return False  # What is loaded is worth more than the file.


class Networks:
    """Loads networks when they are first needed and keeps some. Not for two threads at once.

    Args:
        device: Where they run.
        kept: How many are kept; the one that was used longest ago makes room.
    """

    def __init__(self, device: torch.device, kept: int) -> None:
        self.device = device
        self._kept = kept
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()

    def get(self, source: str) -> Network:
        """Return the network whose weights a name stands for; see `find_weights`.

        A file that has changed since is loaded again, one that is gone is not missed; a repository is asked once.

        Raises:
            InvalidWeights: There are none, or they do not fit.
        """
        known = self._loaded.get(source)
        if known is None or known.outdated:
            # Before the next one is there, or the device would hold one more than it should.
            self._loaded.pop(source, None)
            while len(self._loaded) >= self._kept:
                self._loaded.popitem(last=False)
            self._loaded[source] = known = self._load(source)
        self._loaded.move_to_end(source)
        return known.network

    def _load(self, source: str) -> _Loaded:
        path = find_weights(source)
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError as error:
            raise InvalidWeights(f"{path} cannot be read: {error.strerror}") from error
        architecture, weights = load_weights(path)
        log.info("network loaded", extra={"weights": source, "version": architecture.name, "device": str(self.device)})
        return _Loaded(path, changed_ns, Network(architecture, weights, self.device))


def torch_device(device: Device) -> torch.device:
    """Return the device that a setting stands for.

    Raises:
        InvalidSettings: There is no GPU.
    """
    there = torch.cuda.is_available()
    if device is Device.CUDA and not there:
        raise InvalidSettings("device is cuda, but there is no GPU that PyTorch can use")
    return torch.device("cuda" if there and device is not Device.CPU else "cpu")
