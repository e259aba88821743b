"""Seeded weights in the public checkpoint's format, and clips small enough for one core."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.literal_rife import moving_clip, seeded_weights
from vitascope_interpolator.architecture import RIFE_4_22_LITE, RIFE_4_25
from vitascope_interpolator.network import Network

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights():
    return seeded_weights(RIFE_4_22_LITE.shapes(), seed=1)


@pytest.fixture(scope="session")
def weights_4_25():
    return seeded_weights(RIFE_4_25.shapes(), seed=1)


@pytest.fixture(scope="session")
def network(weights) -> Network:
    return Network(RIFE_4_22_LITE, weights, torch.device("cpu"))


@pytest.fixture(scope="session")
def weights_folder(weights, tmp_path_factory) -> Path:
    """A folder like the public ones: a pickle whose names carry the prefix of data-parallel training."""
    folder = tmp_path_factory.mktemp("rife")
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, folder / "flownet.pkl")
    return folder


@pytest.fixture
def clip():
    return moving_clip
