"""Which checkpoints are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.literal_rife import seeded_weights
from vitascope_core.errors import InvalidWeights
from vitascope_interpolator.architecture import RIFE_4_22_LITE, RIFE_4_25
from vitascope_interpolator.versions import likely_version
from vitascope_interpolator.weights import FILES, load_weights
from vitascope_weights.weight_file import find_weights


@pytest.fixture
def saved(tmp_path):
    def save(tensors, name="flownet.pkl") -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path)
        return path

    return save


def refused(path) -> str:
    with pytest.raises(InvalidWeights) as caught:
        load_weights(path)
    return str(caught.value)


def prefixed(weights):
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def test_the_public_checkpoint_has_as_many_parameters_as_its_author_says() -> None:
    sizes = [torch.Size(shape).numel() for shape in RIFE_4_22_LITE.shapes().values()]

    assert (len(sizes), sum(sizes)) == (128, 4_866_052)


@pytest.mark.parametrize("name", ["flownet.pkl", "other.pth", "flownet.safetensors"])
@pytest.mark.parametrize("form", [dict, prefixed], ids=["bare", "prefixed"])
def test_a_checkpoint_is_read_with_and_without_the_prefix(weights, saved, name, form) -> None:
    architecture, tensors = load_weights(saved(form(weights), name))

    assert architecture == RIFE_4_22_LITE
    assert tensors.keys() == weights.keys()
    assert all(torch.equal(tensors[each], weights[each]) for each in weights)


def test_what_only_training_needs_is_left_out(weights, saved) -> None:
    extras = {
        "module.teacher.x.weight": torch.zeros(2),
        "module.caltime.0.bias": torch.zeros(1),
        "teacher.y": torch.ones(1),
    }

    assert load_weights(saved({**prefixed(weights), **extras}))[1].keys() == weights.keys()


def test_five_stages_are_told_apart(weights_4_25, saved) -> None:
    assert load_weights(saved(prefixed(weights_4_25)))[0] == RIFE_4_25


def test_a_missing_tensor_is_named(weights, saved) -> None:
    del (fewer := prefixed(weights))["module.block2.convblock.3.beta"]

    assert "missing: block2.convblock.3.beta." in refused(saved(fewer))


def test_a_tensor_that_is_not_of_the_network_is_named(weights, saved) -> None:
    said = refused(saved({**weights, "block3.extra.weight": torch.zeros(1), "teachers": torch.zeros(1)}))

    assert "not of it: block3.extra.weight, teachers." in said


def test_a_tensor_of_another_shape_is_named_with_both(weights, saved) -> None:
    said = refused(saved({**weights, "encode.cnn0.weight": torch.zeros(32, 3, 3, 3)}))

    assert "of another shape: encode.cnn0.weight (32, 3, 3, 3) instead of (16, 3, 3, 3)" in said


def test_many_faults_are_counted_and_not_all_listed(weights, saved) -> None:
    said = refused(saved({name: tensor for name, tensor in weights.items() if name.startswith("block0")}))

    assert "block1.conv0.0.0.bias" in said
    assert "and 93 more" in said
    assert len(said) < 700


def test_a_tensor_that_is_there_twice_is_refused(weights, saved) -> None:
    assert "encode.cnn0.bias twice" in refused(saved({**weights, "module.encode.cnn0.bias": torch.zeros(16)}))


def shapes_of(widths, inputs, outputs, *, head=True):
    shapes = {"encode.cnn0.weight": (16, 3, 3, 3)} if head else {}
    for stage, width in enumerate(widths):
        shapes[f"block{stage}.conv0.0.0.weight"] = (width // 2, inputs[min(stage, 1)], 3, 3)
        shapes[f"block{stage}.conv0.1.0.weight"] = (width, width // 2, 3, 3)
        shapes[f"block{stage}.lastconv.0.weight"] = (width, outputs, 4, 4)
    return shapes


@pytest.mark.parametrize(
    ("shapes", "version"),
    [
        (shapes_of((192, 128, 96, 64), (7, 12), 5, head=False), "4.0 to 4.6"),
        (shapes_of((192, 128, 96, 64), (15, 20), 24), "4.7 to 4.9"),
        (shapes_of((128, 96, 64, 48), (15, 20), 24), "4.12 to 4.17 lite"),
        (shapes_of((192, 128, 96, 64), (23, 28), 24), "4.10 to 4.19, 4.24 or 4.14.lite"),
        (shapes_of((384, 192, 96, 48), (23, 28), 24), "4.20"),
        (shapes_of((256, 192, 96, 48), (23, 36), 52), "4.21 to 4.23"),
        (shapes_of((192, 128, 64, 32), (15, 28), 52), "4.22.lite"),
        (shapes_of((192, 128, 96, 64, 32), (15, 28), 52), "4.25 or 4.26"),
        (shapes_of((192, 128, 96, 64, 24), (15, 28), 52), "4.25.lite"),
        (shapes_of((99, 98, 97, 96), (15, 28), 52), None),
        (shapes_of((192, 128, 64, 32), (15, 28), 52, head=False), None),
        ({"conv_first.weight": (64, 3, 3, 3)}, None),
        ({"block0.conv0.1.0.weight": (), "encode.x": ()}, None),
    ],
    ids=str,
)
def test_versions_are_told_by_their_shapes(shapes, version) -> None:
    assert likely_version(shapes) == version


def test_a_refusal_says_which_version_it_probably_is(saved) -> None:
    large = {name: torch.zeros(shape) for name, shape in shapes_of((256, 192, 96, 48), (23, 36), 52).items()}
    lite = {**RIFE_4_25.shapes(), "block4.conv0.1.0.weight": (24, 12, 3, 3)}

    assert "It looks like RIFE 4.21 to 4.23; supported are 4.22.lite and 4.25 or 4.26" in refused(saved(large))
    assert "It looks like RIFE 4.25.lite" in refused(saved(seeded_weights(lite, 0)))
    assert "It looks like no version of RIFE that is known" in refused(saved({"conv_first.weight": torch.zeros(1)}))


def test_a_file_that_cannot_be_read_is_refused(weights_folder, tmp_path) -> None:
    whole = (weights_folder / "flownet.pkl").read_bytes()
    (tmp_path / "flownet.pkl").write_bytes(whole[: len(whole) // 2])

    assert f"{tmp_path / 'flownet.pkl'} cannot be read as tensors" in refused(tmp_path / "flownet.pkl")


@pytest.mark.parametrize("held", [FILES, FILES[1:]], ids=["both", "safetensors"])
def test_a_folder_is_searched_for_the_public_names(tmp_path, held) -> None:
    for name in held:
        (tmp_path / name).touch()

    assert find_weights(str(tmp_path), FILES) == tmp_path / held[0]
