"""What is read as a checkpoint."""

from __future__ import annotations

import contextlib
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitascope_core.errors import InvalidWeights
from vitascope_weights.tensors import listed, misfits, read_tensors

TENSORS = {"a.weight": torch.ones(4, 3), "a.bias": torch.zeros(4)}


@pytest.fixture
def saved(tmp_path):
    def save(content, name="net.pth") -> Path:
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(content, path)
        else:
            torch.save(content, path)
        return path

    return save


def refused(path, *wrappers) -> str:
    with pytest.raises(InvalidWeights) as caught:
        read_tensors(path, wrappers)
    return str(caught.value)


@pytest.mark.parametrize("name", ["net.pth", "net.pkl", "net.safetensors"])
def test_both_formats_are_read(saved, name) -> None:
    read = read_tensors(saved(TENSORS, name))

    assert read.keys() == TENSORS.keys()
    assert torch.equal(read["a.weight"], TENSORS["a.weight"])


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        ({"best": TENSORS, "last": {"other": torch.ones(1)}}, TENSORS.keys()),
        ({"last": TENSORS, "step": 3}, TENSORS.keys()),
        (TENSORS, TENSORS.keys()),
    ],
    ids=["first", "second", "bare"],
)
def test_the_first_wrapper_that_is_there_is_opened(saved, content, taken) -> None:
    assert read_tensors(saved(content), ("best", "last")).keys() == taken


def test_a_wrapper_that_nobody_named_is_refused_by_its_name(saved) -> None:
    assert "other things than floating-point tensors: epoch, state_dict" in refused(
        saved({"state_dict": TENSORS, "epoch": 3}), "best"
    )


class Attack:
    def __reduce__(self):
        return (Path.touch, (Path("attacked"),))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, monkeypatch, save) -> None:
    monkeypatch.chdir(tmp_path)
    save({"a": Attack()}, tmp_path / "net.pth")

    assert "cannot be read as tensors" in refused(tmp_path / "net.pth")
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(1)], {1: torch.zeros(1)}, {"a": 1}, {"a": torch.zeros(1, dtype=torch.int8)}, {"params": [1]}],
)
def test_other_things_than_named_floats_are_refused(saved, content) -> None:
    assert "holds" in refused(saved(content), "params")


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04", b"\x80\x02}q\x00."], ids=str)
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_file_that_is_no_checkpoint_is_refused_by_its_name(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)

    assert f"{tmp_path / name} cannot be read as tensors" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_checkpoint_cut_short_is_refused(saved, name) -> None:
    path = saved(TENSORS, name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    assert "cannot be read as tensors" in refused(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_raise_nothing_else(tmp_path, legacy) -> None:
    chance, path = random.Random(0), tmp_path / "net.pth"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(whole[: chance.randrange(1, len(whole) + 1)] if chance.random() < 0.3 else whole)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InvalidWeights):  # some are read all the same
            read_tensors(path)


def test_misfits_are_named_by_kind() -> None:
    said = misfits({"a": (1,), "b": (2, 3), "x": ()}, {"a": (1,), "b": (2, 4), "c": (5,)})

    assert said == "missing: c; not of it: x; of another shape: b (2, 3) instead of (2, 4)"
    assert not misfits({"a": (1,)}, {"a": (1,)})
    assert listed(map(str, range(8))) == "0, 1, 2, 3, 4 and 3 more"
