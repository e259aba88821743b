"""Which networks stay loaded, which weights settings may name, and whose turn it is on the device."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch

from vitascope_core.errors import DeviceOutOfMemory, InvalidSettings, InvalidWeights
from vitascope_weights.choice import check_names, every_name
from vitascope_weights.device import Device
from vitascope_weights.exclusive_device import ExclusiveDevice, torch_device
from vitascope_weights.kept_networks import KeptNetworks


@pytest.fixture
def files(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def keep(files):
    """Keeps the networks of the files; of ``a`` as what ``load`` makes of it."""

    def make(kept, load=lambda path, _: path.read_text()):
        return KeptNetworks(lambda name: files / name, load, kept)

    return make


def test_the_network_used_longest_ago_makes_room(keep) -> None:
    loads: list[str] = []
    kept = keep(2, lambda path, _: loads.append(path.name) or path.name)
    for name in "abacab":
        assert kept.get(name) == name

    assert loads == ["a", "b", "c", "b"]


def test_room_is_made_before_the_next_is_loaded(keep) -> None:
    held: list[int] = []
    kept = keep(1, lambda path, _: held.append(len(kept._loaded)) or path.name)
    kept.get("a")
    kept.get("b")

    assert held == [0, 0]


@pytest.mark.parametrize("changed_ns", [1, 2**62], ids=["older", "newer"])
def test_a_file_that_changed_is_loaded_again_and_one_that_is_gone_is_not_missed(keep, files, changed_ns) -> None:
    kept = keep(2)
    kept.get("a")
    (files / "a").write_text("new")
    os.utime(files / "a", ns=(changed_ns, changed_ns))
    changed = kept.get("a")
    (files / "a").unlink()

    assert (changed, kept.get("a")) == ("new", "new")


def test_names_of_one_file_share_its_network(files) -> None:
    loads: list[str] = []
    kept = KeptNetworks(lambda _: files / "a", lambda _, name: loads.append(name) or object(), 2)

    assert kept.get("one") is kept.get("two")
    assert loads == ["one"]


def test_a_name_is_looked_up_once_unless_its_file_made_room_and_is_gone(files) -> None:
    found: list[str] = []

    def find(name):
        found.append(name)
        return files / (name if (files / name).exists() else "c")

    kept = KeptNetworks(find, lambda path, _: path.name, 1)
    for name in "aaba":
        kept.get(name)
    before = list(found)
    kept.get("b")
    (files / "a").unlink()

    assert before == ["a", "b"]
    assert (kept.get("a"), found) == ("c", ["a", "b", "a"])


def test_a_file_that_was_never_there_is_told(keep) -> None:
    with pytest.raises(InvalidWeights, match="cannot be read: No such file"):
        keep(1).get("d")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    assert torch_device(Device.AUTO) == torch_device(Device.CPU) == torch.device("cpu")
    with pytest.raises(InvalidSettings, match="no GPU"):
        ExclusiveDevice(Device.CUDA)


def test_a_device_is_had_by_one_at_a_time() -> None:
    device, seen = ExclusiveDevice(Device.CPU), []

    def later() -> None:
        with device.alone("upscaling"):
            seen.append("second")

    other = threading.Thread(target=later)
    with device.alone("upscaling"):
        other.start()
        seen.append("first")
    other.join(10)

    assert seen == ["first", "second"]


def test_a_full_device_is_told_as_one_and_free_for_the_next() -> None:
    device = ExclusiveDevice(Device.CPU)

    with pytest.raises(DeviceOutOfMemory, match="ran out of memory while loading"), device.alone("loading"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with device.alone("upscaling"):
        pass


@pytest.mark.parametrize(
    ("model_path", "allowed", "said"),
    [
        (" ", (), "model_path must name weights"),
        ("a/b", ("", "c/d"), "allowed_models must name weights"),
        ("https://x/y", (), "model_path must be a local path or a Hugging Face repo id, not a URL: https://x/y"),
        ("a/b", ("s3://x",), "allowed_models must be a local path or a Hugging Face repo id, not a URL: s3://x"),
    ],
)
def test_names_of_weights_are_checked(model_path, allowed, said) -> None:
    with pytest.raises(InvalidSettings) as caught:
        check_names(model_path, allowed)

    assert str(caught.value) == said


def test_every_name_is_listed_once_the_default_first() -> None:
    assert every_name("b", ("a", "b", "a")) == ("b", "a")


def test_settings_need_neither_torch_nor_the_hub() -> None:
    code = (
        "import sys, vitascope_weights.choice, vitascope_weights.device;"
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
