"""Where weights are looked for, and what the hub may answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from vitascope_core.errors import InvalidWeights
from vitascope_models.catalogue import DEMO_RIFE, embedded
from vitascope_weights import weight_file
from vitascope_weights.choice import is_url
from vitascope_weights.weight_file import find_weights

SMALL, LARGE = ("small.pth", "small.safetensors"), ("large.pth", "large.safetensors")
FLOWNET = ("flownet.pkl", "flownet.safetensors")


class Hub:
    """Stands in for the hub: only what it holds is there."""

    def __init__(self, files, missing=EntryNotFoundError) -> None:
        self.files = files
        self.missing = missing
        self.asked = []

    def __call__(self, repository, name, *, local_files_only):
        self.asked.append((name, local_files_only))
        if name in self.files:
            return f"/cache/{repository}/{name}"
        raise self.missing.__new__(self.missing)


@pytest.fixture
def hub(monkeypatch):
    def put(*files, missing=EntryNotFoundError):
        monkeypatch.setattr(weight_file, "hf_hub_download", made := Hub(files, missing))
        return made

    return put


@pytest.mark.parametrize(
    ("held", "taken"),
    [
        (["small.pth", "small.safetensors", "large.pth"], "small.pth"),
        (["small.safetensors", "large.pth"], "small.safetensors"),
        (["large.safetensors"], "large.safetensors"),
    ],
)
def test_a_folder_and_a_repository_are_searched_in_the_same_order(tmp_path, hub, held, taken) -> None:
    for name in held:
        (tmp_path / name).touch()
    hub(*held)

    assert find_weights(str(tmp_path), SMALL, LARGE) == tmp_path / taken
    assert find_weights("a/b", SMALL, LARGE) == Path("/cache/a/b") / taken


def test_a_named_file_is_the_only_one_asked_for(hub) -> None:
    hub("small.pth", "v2/net.pth")

    assert find_weights("a/b:v2/net.pth", SMALL) == Path("/cache/a/b/v2/net.pth")


def test_a_file_that_is_there_wins_over_a_repository(tmp_path, monkeypatch, hub) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b:small.pth").touch()
    hub("small.pth")

    assert find_weights("a/b:small.pth", SMALL) == Path("a/b:small.pth")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (EntryNotFoundError, "a/b has no small.pth and no small.safetensors and no large.pth"),
        (RepositoryNotFoundError, "neither a local path nor a Hugging Face repository"),
        (ConnectionError, "could not be downloaded"),
    ],
)
def test_what_the_hub_does_not_give_is_told(hub, missing, said) -> None:
    hub(missing=missing)

    with pytest.raises(InvalidWeights, match=said):
        find_weights("a/b", SMALL, LARGE)


def test_a_cache_never_chooses_between_different_weights(hub) -> None:
    hub("large.pth", missing=LocalEntryNotFoundError)

    with pytest.raises(InvalidWeights, match=r"small.pth or small.safetensors of a/b is not in the local cache"):
        find_weights("a/b", SMALL, LARGE)


def test_a_cache_may_choose_between_forms_of_the_same_weights(hub) -> None:
    there = hub("small.safetensors", missing=LocalEntryNotFoundError)

    assert find_weights("a/b", SMALL, LARGE).name == "small.safetensors"
    # Whether a hub is there is asked once: it takes long to find out that it is not.
    assert there.asked == [("small.pth", False), ("small.safetensors", True)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://huggingface.co/a/b", "not a URL"),
        ("file:///etc/passwd", "not a URL"),
        ("/no/such/folder", "no such file or folder"),
        ("weights", "no such file or folder"),
        ("../weights/rife", "no such file or folder"),
        ("owner/name:a:b", "no such file or folder"),
    ],
)
def test_other_names_are_refused(source, said) -> None:
    with pytest.raises(InvalidWeights, match=said):
        find_weights(source, SMALL)


def test_a_folder_without_weights_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidWeights, match=r"has neither small.pth nor small.safetensors"):
        find_weights(str(tmp_path), SMALL)


def test_a_file_that_is_named_may_be_called_anything(tmp_path) -> None:
    (tmp_path / "mine.bin").touch()

    assert find_weights(str(tmp_path / "mine.bin"), SMALL) == tmp_path / "mine.bin"


def test_offline_mode_is_heeded(monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(InvalidWeights, match="not in the local cache"):
        find_weights("owner/name", SMALL)


def test_urls_are_told_apart() -> None:
    assert is_url("s3://bucket/x")
    assert not is_url("owner/name:file.pth")


def test_a_demonstration_model_is_found_without_asking_the_hub(hub):
    asked = hub()

    found = find_weights(DEMO_RIFE, FLOWNET)

    assert found.parent == embedded(DEMO_RIFE)
    assert asked.asked == []
