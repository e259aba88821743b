import json
from pathlib import Path

import pytest

from vitascope_models.catalogue import CARD, CHECKSUMS, NAMES, checksums, damaged, data_folder, embedded


@pytest.mark.parametrize("name", NAMES)
def test_a_demonstration_model_comes_with_weights_and_a_card(name: str) -> None:
    folder = embedded(name)

    assert folder is not None
    assert list(folder.rglob("*.safetensors"))
    assert (folder / CARD).read_text(encoding="utf-8").startswith("---\nlicense:")


def test_another_name_is_not_embedded() -> None:
    assert embedded("vitascope/demo-other") is None


def test_the_files_are_those_that_were_packed() -> None:
    assert damaged(data_folder()) == []


def test_a_changed_a_lost_and_a_new_file_are_told(tmp_path: Path) -> None:
    for name in ("kept", "changed", "lost"):
        (tmp_path / name).write_text(name)
    (tmp_path / CHECKSUMS).write_text(json.dumps(checksums(tmp_path)))
    (tmp_path / "changed").write_text("otherwise")
    (tmp_path / "lost").unlink()
    (tmp_path / "new").write_text("new")

    assert damaged(tmp_path) == ["changed", "lost", "new"]


def test_all_of_them_stay_below_20_megabytes() -> None:
    assert sum(file.stat().st_size for file in data_folder().rglob("*") if file.is_file()) < 20_000_000
