"""Which checkpoints are taken, as which network, and what is said of the others."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file

from vitascope_core.errors import InvalidWeights
from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.checkpoints import checkpoint_for, load_checkpoint
from vitascope_upscaler.detection import detect
from vitascope_upscaler.key_styles import todays_names
from vitascope_weights import weight_file

TINY = Rrdb(8, 2, 4, 1, 2)

PUBLIC = {
    "x4plus": (Rrdb(64, 23, 32, 1, 2), 16_697_987, 4),
    "x2plus": (Rrdb(64, 23, 32, 2, 2), 16_703_171, 2),
    "x4plus_anime_6B": (Rrdb(64, 6, 32, 1, 2), 4_467_779, 4),
    "x8": (Rrdb(64, 23, 32, 1, 3), 16_734_915, 8),
    "animevideov3": (Compact(64, 16, 4), 621_424, 4),
    "general-x4v3": (Compact(64, 32, 4), 1_213_296, 4),
}


@pytest.mark.parametrize(("architecture", "parameters", "scale"), PUBLIC.values(), ids=PUBLIC)
def test_public_checkpoints_have_as_many_parameters_as_their_authors_say(architecture, parameters, scale) -> None:
    sizes = [torch.Size(shape).numel() for shape in architecture.shapes().values()]

    assert (sum(sizes), architecture.scale) == (parameters, scale)


SPECS = [
    *(architecture for architecture, _, _ in PUBLIC.values()),
    *(Rrdb(48, 5, 24, 1, 2), Rrdb(64, 23, 32, 4, 2), Rrdb(64, 2, 32, 1, 1), Rrdb(16, 1, 8, 1, 0)),
    *(Compact(64, 16, 2), Compact(24, 8, 1), Compact(16, 0, 3)),
]


@pytest.mark.parametrize("architecture", SPECS, ids=lambda each: each.name)
def test_a_network_is_told_from_its_tensors(architecture) -> None:
    assert detect(architecture.shapes()) == architecture


def of_2018(architecture):
    """Name the tensors as the networks of 2018 did: one sequence, numbered."""
    ups = architecture.doublings
    places = {"conv_first": "0", "conv_hr": str(3 * ups + 2), "conv_last": str(3 * ups + 4)}
    places |= {f"conv_up{up}": str(3 * up) for up in range(1, ups + 1)}
    places["conv_body"] = f"1.sub.{architecture.blocks}"

    def old(name):
        layer, _, kind = name.rpartition(".")
        if layer in places:
            return f"model.{places[layer]}.{kind}"
        return re.sub(r"body\.(\d+)\.rdb(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0", name)

    return {old(name): name for name in architecture.shapes()}


def of_bsrgan(architecture):
    def old(name):
        name = re.sub(r"body\.(\d+)\.rdb(\d)\.", r"RRDB_trunk.\1.RDB\2.", name)
        name = re.sub(r"conv_up(\d)", r"upconv\1", name)
        return name.replace("conv_body", "trunk_conv").replace("conv_hr", "HRconv")

    return {old(name): name for name in architecture.shapes()}


@pytest.mark.parametrize("style", [of_2018, of_bsrgan])
@pytest.mark.parametrize("doublings", [0, 1, 2, 3])
def test_older_names_are_read(style, doublings) -> None:
    names = style(Rrdb(8, 11, 4, 1, doublings))

    assert todays_names(names) == names


def test_a_number_that_no_network_of_2018_has_there_is_kept() -> None:
    names = dict(of_2018(TINY))
    del names["model.1.sub.2.bias"], names["model.10.bias"]
    odd = {"model.1.sub.5.bias": "model.1.sub.5.bias", "model.10.other": "model.10.other"}

    assert todays_names([*names, *odd]) == names | odd


def test_todays_names_stay_as_they_are() -> None:
    names = [*TINY.shapes(), *Compact(8, 2, 4).shapes(), "model.0.weight"]

    assert todays_names(names) == {name: name for name in names}


@pytest.fixture
def saved(tmp_path):
    def save(content, name="net.pth"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
        return path

    return save


WRAPPED = {
    "average": lambda tensors: {"params_ema": tensors, "params": {"old": torch.zeros(1)}},
    "params": lambda tensors: {"params": tensors},
    "bare": lambda tensors: tensors,
    "parallel": lambda tensors: {"params": {f"module.{name}": tensor for name, tensor in tensors.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_checkpoint_is_read_however_it_is_wrapped(weights_of, saved, wrap) -> None:
    weights = weights_of(TINY)
    architecture, tensors = load_checkpoint(saved(wrap(weights)))

    assert (architecture, tensors.keys()) == (TINY, weights.keys())
    assert torch.equal(tensors["conv_last.bias"], weights["conv_last.bias"])


@pytest.mark.parametrize("style", [of_2018, of_bsrgan])
def test_a_checkpoint_with_older_names_is_the_same_network(weights_of, saved, style) -> None:
    weights = weights_of(TINY)
    architecture, tensors = load_checkpoint(saved({old: weights[new] for old, new in style(TINY).items()}))

    assert architecture == TINY
    assert all(torch.equal(tensors[name], weights[name]) for name in weights)


def test_safetensors_are_read(weights_of, saved) -> None:
    assert load_checkpoint(saved(weights_of(TINY), "net.safetensors"))[0] == TINY


def without(*names):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def with_(**tensors):
    return lambda given: {**given, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


def first_half(tensors):
    return dict(list(tensors.items())[: len(tensors) // 2])


SMALL = Compact(8, 2, 4)


@pytest.mark.parametrize(
    ("architecture", "change", "said"),
    [
        (TINY, without("conv_hr.bias"), "RRDB with 2 blocks, x4, but does not fit: missing: conv_hr.bias"),
        (TINY, without("body.0.rdb2.conv3.weight"), "missing: body.0.rdb2.conv3.weight"),
        (TINY, with_(extra__weight=torch.zeros(1)), "not of it: extra.weight"),
        (TINY, with_(conv_hr__weight=torch.zeros(8, 9, 3, 3)), "conv_hr.weight (8, 9, 3, 3) instead of (8, 8, 3, 3)"),
        (TINY, with_(conv_last__weight=torch.zeros(1, 8, 3, 3)), "conv_last.weight (1, 8, 3, 3) instead of (3,"),
        (TINY, with_(conv_up4__weight=torch.zeros(8, 8, 3, 3)), "not of it: conv_up4.weight"),
        (TINY, with_(body__7__rdb1__conv1__weight=torch.zeros(4, 8, 3, 3)), "not of it: body.7.rdb1.conv1.weight"),
        (TINY, first_half, "missing: body.1."),
        (TINY, with_(conv_first__weight=torch.zeros(8, 1, 3, 3)), "neither RRDBNet nor SRVGGNetCompact"),
        (Rrdb(8, 1, 4, 4, 1), dict, "neither RRDBNet nor SRVGGNetCompact"),
        (SMALL, without("body.1.weight", "body.3.weight", "body.5.weight"), "neither RRDBNet nor SRVGGNetCompact"),
        (SMALL, without("body.2.bias"), "compact with 2 convolutions, x4, but does not fit: missing: body.2.bias"),
        (SMALL, without("body.3.weight"), "missing: body.3.weight"),
        (SMALL, with_(body__6__weight=torch.zeros(16, 8, 3, 3)), "neither RRDBNet nor SRVGGNetCompact"),
        (SMALL, with_(body__6__weight=torch.zeros(1, 8, 3, 3)), "neither RRDBNet nor SRVGGNetCompact"),
        (SMALL, first_half, "body."),
        (SMALL, lambda _: {"conv1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "are conv1.weight, fc.bias"),
        (SMALL, lambda _: {}, "its 0 tensors are none"),
        (SMALL, lambda tensors: {"state_dict": tensors}, "other things than floating-point tensors: state_dict"),
        (SMALL, with_(module__body__0__weight=torch.zeros(1)), "twice, with and without module.: body.0.weight"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(weights_of, saved, architecture, change, said) -> None:
    path = saved(change(weights_of(architecture)))

    with pytest.raises(InvalidWeights) as caught:
        load_checkpoint(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_tensor_under_its_old_and_its_new_name_is_refused(weights_of, saved) -> None:
    weights = weights_of(TINY)
    old = {old: weights[new] for old, new in of_bsrgan(TINY).items()}

    with pytest.raises(InvalidWeights, match="twice, under old and new names"):
        load_checkpoint(saved({**old, "conv_hr.bias": weights["conv_hr.bias"]}))


def test_a_file_cut_short_is_refused(weights_of, saved) -> None:
    path = saved(weights_of(TINY))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(InvalidWeights, match="cannot be read as tensors"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("scale", "name"),
    [(1, "x4"), (1.5, "x4"), (2, "x2"), (2.0, "x2"), (2.5, "x4"), (3, "x4"), (4, "x4"), (5, "x4"), (8.0, "x8")],
)
def test_a_scale_is_made_by_the_network_that_was_trained_for_it(weights_folder, scale, name) -> None:
    assert checkpoint_for(str(weights_folder), scale) == weights_folder / f"RealESRGAN_{name}.pth"


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_single_file_serves_every_scale(weights_folder, scale) -> None:
    file = weights_folder / "RealESRGAN_x2.pth"

    assert checkpoint_for(str(file), scale) == file


def test_without_a_network_for_a_scale_x4_makes_it(tmp_path) -> None:
    (tmp_path / "RealESRGAN_x4.pth").touch()

    assert checkpoint_for(str(tmp_path), 2).name == "RealESRGAN_x4.pth"


def test_offline_mode_is_heeded(monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(InvalidWeights, match=r"RealESRGAN_x2.pth or RealESRGAN_x2.safetensors of .* is not in the"):
        checkpoint_for("ai-forever/Real-ESRGAN", 2)


def test_the_default_repository_is_asked_for_the_scales_own_file(monkeypatch) -> None:
    monkeypatch.setattr(weight_file, "hf_hub_download", lambda repository, name, **_: f"/cache/{repository}/{name}")

    assert str(checkpoint_for("ai-forever/Real-ESRGAN", 8)) == "/cache/ai-forever/Real-ESRGAN/RealESRGAN_x8.pth"
    assert str(checkpoint_for("a/b:c.pth", 8)) == "/cache/a/b/c.pth"
