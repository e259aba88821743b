"""Seeded weights in the public checkpoints' formats, small enough for one core."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.literal_esrgan import seeded_weights
from bench.literal_rife import moving_clip
from vitascope_upscaler.architecture import Architecture, Compact, Rrdb
from vitascope_upscaler.network import Network, network_of

torch.set_num_threads(1)

X2 = Rrdb(8, 1, 4, unshuffle=2, doublings=2)
X4 = Rrdb(8, 1, 4, unshuffle=1, doublings=2)
X8 = Rrdb(8, 1, 4, unshuffle=1, doublings=3)
COMPACT = Compact(8, 3, 4)


@pytest.fixture(scope="session")
def weights_of():
    """Seeded tensors of a network."""
    return lambda architecture, seed=1: seeded_weights(architecture.shapes(), seed)


@pytest.fixture(scope="session")
def network(weights_of):
    """A network on the CPU."""

    def make(architecture: Architecture, seed: int = 1) -> Network:
        return network_of(architecture, weights_of(architecture, seed), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def weights_folder(weights_of, tmp_path_factory) -> Path:
    """A folder like the default repository: one file for each of 2, 4 and 8."""
    folder = tmp_path_factory.mktemp("esrgan")
    for architecture in (X2, X4, X8):
        tensors = {"params": weights_of(architecture)}
        torch.save(tensors, folder / f"RealESRGAN_x{architecture.scale}.pth")
    return folder


@pytest.fixture
def clip():
    return moving_clip
