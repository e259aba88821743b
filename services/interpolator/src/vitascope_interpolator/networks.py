"""The networks of RIFE that are loaded, by the name of their weights."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from vitascope_interpolator.network import Network
from vitascope_interpolator.weights import FILES, load_weights
from vitascope_weights.kept_networks import KeptNetworks
from vitascope_weights.weight_file import find_weights

log = logging.getLogger(__name__)


class Networks:
    """Loads networks when they are first needed and keeps some. Not for two threads at once.

    Args:
        device: Where they run.
        kept: How many are kept; the one that was used longest ago makes room.
    """

    def __init__(self, device: torch.device, kept: int) -> None:
        self.device = device
        self._kept = KeptNetworks(_found, self._load, kept)

    def get(self, source: str) -> Network:
        """Return the network whose weights a name stands for; see `find_weights`.

        A file that has changed since is loaded again, one that is gone is not missed; a repository is asked once.

        Raises:
            InvalidWeights: There are none, or they do not fit.
        """
        return self._kept.get(source)

    def _load(self, path: Path, source: str) -> Network:
        architecture, weights = load_weights(path)
        told = {"weights": source, "version": architecture.name, "device": str(self.device)}
        log.info("network loaded", extra=told)
        return Network(architecture, weights, self.device)


def _found(source: str) -> Path:
    return find_weights(source, FILES)
