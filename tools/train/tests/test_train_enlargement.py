"""Weights for upscaling: what is trained is what the upscaler runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.literal_esrgan import seeded_weights
from bench.literal_rife import moving_clip
from tools.train.enlargement import ARCHITECTURE, SCALE, STATE, WEIGHTS, Srvgg, enlarged, evaluate, export, train
from tools.train.fidelity import as_bytes, as_floats, decibels, write_weights
from vitascope_upscaler.checkpoints import checkpoint_for, load_checkpoint
from vitascope_upscaler.settings import UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler
from vitascope_weights.device import Device


@pytest.fixture(scope="module")
def network() -> Srvgg:
    """Weights that change what they enlarge but keep it recognisable, as half precision holds them."""
    network = Srvgg()
    seeded = seeded_weights(ARCHITECTURE.shapes(), seed=1)
    network.load_state_dict({name: tensor.half().float() for name, tensor in seeded.items()})
    return network.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The state after two tiny steps."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, 2, batch=2)
    return folder


def test_the_upscaler_finds_exported_weights_and_knows_the_network(network, tmp_path) -> None:
    file = write_weights(network, tmp_path / WEIGHTS)

    assert checkpoint_for(str(tmp_path), SCALE) == file
    assert load_checkpoint(file)[0] == ARCHITECTURE


def test_the_upscaler_makes_of_exported_weights_what_was_trained(network, tmp_path) -> None:
    frames = moving_clip(2, 32, 48)
    write_weights(network, tmp_path / WEIGHTS)
    upscaler = Upscaler(UpscalerSettings(model_path=str(tmp_path), device=Device.CPU))

    with torch.no_grad():
        expected = as_bytes(network(as_floats(frames)))

    made = enlarged(upscaler, frames)
    assert made.shape == (2, 128, 192, 3)
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_the_exported_weights_are_small(trained, tmp_path) -> None:
    assert export(trained, tmp_path).stat().st_size < 400_000


def test_a_resumed_training_equals_one_that_ran_through(trained, tmp_path) -> None:
    train(tmp_path, 2, until=1, batch=2)
    train(tmp_path, 2, batch=2)

    resumed, through = (torch.load(folder / STATE, weights_only=True) for folder in (tmp_path, trained))
    assert all(map(torch.equal, resumed["weights"], through["weights"]))
    assert all(map(torch.equal, resumed["averages"], through["averages"]))


def test_export_without_a_training_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=STATE):
        export(tmp_path, tmp_path)


def test_plain_enlargement_is_worse_than_bicubic(tmp_path) -> None:
    network = Srvgg()
    torch.nn.init.zeros_(network.body[-1].weight)  # what is left is the nearest pixel

    measured = evaluate(write_weights(network, tmp_path / WEIGHTS).parent, clips=4)

    assert -6 < measured.captions.gain < -1
    assert -6 < measured.drawings.gain < -1


@pytest.mark.parametrize(("error", "expected"), [(0, 68.13), (1, 48.13), (10, 28.13)])
def test_decibels_are_those_of_the_mean_squared_error(error, expected) -> None:
    true = np.full((1, 4, 4, 3), 100, np.uint8)

    assert decibels(true + np.uint8(error), true) == pytest.approx(expected, abs=0.01)
