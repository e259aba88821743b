"""Which checkpoints are taken, and what is said of the others."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file

from bench.literal_rife import seeded_weights
from vitascope_core.errors import InvalidWeights
from vitascope_interpolator import weight_file
from vitascope_interpolator.architecture import RIFE_4_22_LITE, RIFE_4_25
from vitascope_interpolator.versions import likely_version
from vitascope_interpolator.weight_file import find_weights
from vitascope_interpolator.weights import load_weights


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


class Attack:
    def __reduce__(self):
        return (Path.touch, (Path("attacked"),))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, monkeypatch, save) -> None:
    monkeypatch.chdir(tmp_path)
    save({"block0.x": Attack()}, tmp_path / "flownet.pkl")

    assert "cannot be read as tensors" in refused(tmp_path / "flownet.pkl")
    assert not Path("attacked").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04", b"\x80\x02}q\x00."], ids=str)
@pytest.mark.parametrize("name", ["flownet.pkl", "flownet.safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)

    assert str(tmp_path / name) in refused(tmp_path / name)


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], {1: torch.zeros(1)}, {"a": 1}, {"a": torch.zeros(1, dtype=torch.int8)}]
)
def test_other_things_than_named_floats_are_refused(saved, content) -> None:
    assert "holds" in refused(saved(content))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_never_raise_anything_else(saved, legacy) -> None:
    tensors, chance = {"a.b": torch.ones(4, 3), "c": torch.zeros(5)}, random.Random(0)
    path = saved(tensors)
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole[: chance.randrange(1, len(whole) + 1)] if chance.random() < 0.3 else whole)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        refused(path)  # whatever was read is not RIFE


def test_a_checkpoint_cut_short_is_refused(weights_folder, tmp_path) -> None:
    whole = (weights_folder / "flownet.pkl").read_bytes()
    (tmp_path / "flownet.pkl").write_bytes(whole[: len(whole) // 2])

    assert "cannot be read as tensors" in refused(tmp_path / "flownet.pkl")


def test_a_file_and_a_folder_are_found(weights_folder) -> None:
    file = weights_folder / "flownet.pkl"

    assert find_weights(str(file)) == find_weights(str(weights_folder)) == file


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://huggingface.co/elfgum/RIFE-4.22.lite", "not a URL"),
        ("file:///etc/passwd", "not a URL"),
        ("/no/such/folder", "no such file or folder"),
        ("rife", "no such file or folder"),
        ("../weights/rife", "no such file or folder"),
        ("owner/name:a:b", "no such file or folder"),
    ],
)
def test_other_names_are_refused(source, said) -> None:
    with pytest.raises(InvalidWeights, match=said):
        find_weights(source)


def test_a_folder_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidWeights, match=r"has neither flownet.pkl nor flownet.safetensors"):
        find_weights(str(tmp_path))


class Hub:
    """Stands in for the hub: only what it holds is there."""

    def __init__(self, files, missing=EntryNotFoundError) -> None:
        self.files = files
        self.missing = missing
        self.asked = []

    def __call__(self, repository, name, *, local_files_only):
        self.asked.append((name, local_files_only))
        if (repository, name) in self.files:
            return f"/cache/{repository}/{name}"
        raise self.missing.__new__(self.missing)


@pytest.mark.parametrize(
    ("files", "source", "found"),
    [
        ([("a/b", "flownet.pkl"), ("a/b", "flownet.safetensors")], "a/b", "flownet.pkl"),
        ([("a/b", "flownet.safetensors")], "a/b", "flownet.safetensors"),
        ([("a/b", "flownet.pkl"), ("a/b", "v2/rife.pth")], "a/b:v2/rife.pth", "v2/rife.pth"),
    ],
)
def test_a_repository_is_asked_for_its_weights(monkeypatch, files, source, found) -> None:
    monkeypatch.setattr(weight_file, "hf_hub_download", Hub(files))

    assert find_weights(source) == Path("/cache/a/b") / found


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (EntryNotFoundError, r"a/b has no flownet.pkl and no flownet.safetensors"),
        (LocalEntryNotFoundError, r"a/b is not in the local cache and Hugging Face cannot be reached"),
        (RepositoryNotFoundError, r"neither a local path nor a Hugging Face repository"),
        (ConnectionError, r"could not be downloaded"),
    ],
)
def test_what_the_hub_does_not_give_is_told(monkeypatch, missing, said) -> None:
    monkeypatch.setattr(weight_file, "hf_hub_download", Hub([], missing))

    with pytest.raises(InvalidWeights, match=said):
        find_weights("a/b")


def test_a_hub_that_is_away_is_asked_once(monkeypatch) -> None:
    hub = Hub([], LocalEntryNotFoundError)
    monkeypatch.setattr(weight_file, "hf_hub_download", hub)

    with pytest.raises(InvalidWeights):
        find_weights("a/b")

    assert hub.asked == [("flownet.pkl", False), ("flownet.safetensors", True)]


def test_offline_mode_is_heeded(monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(InvalidWeights, match="not in the local cache"):
        find_weights("elfgum/RIFE-4.22.lite")
