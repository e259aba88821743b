"""Weights for frame interpolation: what is trained is what the interpolator runs."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.literal_rife import moving_clip, seeded_weights
from tools.train.fidelity import as_floats, write_weights
from tools.train.interpolation import (
    STATE,
    WEIGHTS,
    Pairs,
    _fine_loss,
    _loss,
    averaged,
    captioned_clips,
    drawn_pairs,
    evaluate,
    export,
    train,
)
from tools.train.rife import Guess, Rife
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_interpolator.network import Network
from vitascope_interpolator.weights import load_weights


@pytest.fixture(scope="module")
def network() -> Rife:
    """Weights that move things by some pixels, as half precision holds them."""
    network = Rife()
    seeded = seeded_weights(RIFE_4_22_LITE.shapes(), seed=1)
    network.load_state_dict({name: tensor.half().float() for name, tensor in seeded.items()})
    return network.eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The state after two tiny steps."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, 2, batch=2)
    return folder


def test_the_names_and_shapes_are_the_public_checkpoints() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in Rife().state_dict().items()}

    assert shapes == RIFE_4_22_LITE.shapes()


def test_the_interpolator_makes_of_exported_weights_what_was_trained(network, tmp_path) -> None:
    first, second = as_floats(moving_clip(2, 64, 96)).split(1)

    architecture, weights = load_weights(write_weights(network, tmp_path / WEIGHTS))
    product = Network(architecture, weights, torch.device("cpu"))
    with torch.no_grad():
        made = product.between(product.encode(torch.cat((first, second))), scale=1.0)
        guesses = network(first, second)

    assert (guesses[-1].flow.abs().amax(), guesses[-1].frame.std()) > (1, 0.1)  # it moves things, and shows something
    assert (made - guesses[-1].frame).abs().max() < 1e-4


def test_computing_in_half_precision_changes_little(network) -> None:
    first, second = as_floats(moving_clip(2, 64, 96)).split(1)
    half = Rife(half=True)
    half.load_state_dict(network.state_dict())

    with torch.no_grad():
        error = half(first, second)[-1].frame - network(first, second)[-1].frame

    assert 0 < error.abs().mean() < 0.02


def test_the_exported_weights_are_half_precision(trained, tmp_path) -> None:
    file = export(trained, tmp_path)

    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}


def test_a_resumed_training_equals_one_that_ran_through(trained, tmp_path) -> None:
    train(tmp_path, 2, until=1, batch=2)
    train(tmp_path, 2, batch=2)

    resumed, through = (torch.load(folder / STATE, weights_only=True) for folder in (tmp_path, trained))
    assert all(map(torch.equal, resumed["weights"], through["weights"]))
    assert all(map(torch.equal, resumed["averages"], through["averages"]))


def test_a_training_goes_on_from_packed_weights(network, tmp_path) -> None:
    write_weights(network, tmp_path / WEIGHTS)

    def weights_after(steps: int) -> list[torch.Tensor]:
        train(tmp_path, 2, until=steps, batch=2, packed=tmp_path)
        kept: list[torch.Tensor] = torch.load(tmp_path / STATE, weights_only=True)["weights"]
        return kept

    before, after = weights_after(0), weights_after(1)
    assert all(map(torch.equal, before, network.parameters()))
    assert all(bool(new.isfinite().all()) for new in after)
    assert not any(map(torch.equal, before, after))


def test_weights_that_learn_on_heed_pairs_that_are_nearly_right() -> None:
    def worth(loss: Callable[[list[Guess], Pairs], torch.Tensor]) -> float:
        """Return what halving the error of a near pair is worth, as a share of what it is worth for a far one."""
        still, nowhere = torch.zeros(2, 3, 32, 32), torch.zeros(2, 4, 32, 32)

        def of(near: float, far: float) -> float:
            frame = still + torch.tensor([near, far]).view(2, 1, 1, 1)
            return float(loss([Guess(frame, nowhere)] * 4, Pairs(still, still, still, nowhere)))

        return (of(0.01, 0.1) - of(0.005, 0.1)) / (of(0.01, 0.1) - of(0.01, 0.05))

    assert worth(_fine_loss) > 1.5 * worth(lambda guesses, pairs: _loss(guesses, pairs, 0.0))


def test_export_without_a_training_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=STATE):
        export(tmp_path, tmp_path)


def test_every_weight_learns() -> None:
    network = Rife()
    pairs = drawn_pairs(Random(1), 4, 64)

    network(pairs.first, pairs.second)[-1].frame.square().mean().backward()

    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_clips_that_are_measured_on_have_the_frames_between() -> None:
    once, twice = (captioned_clips(1, ("grow",), 4, exp)[0] for exp in (1, 2))

    assert len(once) == 9
    assert np.array_equal(once, twice[::2])


def test_averaging_mixes_the_neighbours_by_their_distance() -> None:
    frames = np.array([0, 40, 80], np.uint8).reshape(3, 1, 1, 1)

    assert averaged(frames, 2).flatten().tolist() == list(range(0, 90, 10))


def test_what_averages_its_neighbours_gains_nothing(tmp_path) -> None:
    network = Rife()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lastconv" in name:
                weight.zero_()

    measured = evaluate(write_weights(network, tmp_path / WEIGHTS).parent, clips=2)

    assert measured.captions.gain == pytest.approx(0, abs=0.3)
    assert measured.still == 0
