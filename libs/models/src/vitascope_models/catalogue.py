"""The names under which the demonstration models are asked for, and where their files lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

DEMO = "vitascope/demo"
"""A diffusers folder of Wan's architecture: simple shapes that move, from a text or from a first frame."""

DEMO_STRIPES = "vitascope/demo-stripes"
"""A LoRA for `DEMO`: whatever it draws is striped."""

DEMO_RIFE = "vitascope/demo-rife"
"""Weights of RIFE 4.22.lite."""

DEMO_ESRGAN = "vitascope/demo-esrgan"
"""Weights of Real-ESRGAN's compact network, four times."""

NAMES = (DEMO, DEMO_STRIPES, DEMO_RIFE, DEMO_ESRGAN)

CARD = "README.md"
"""The file of each folder that says how the model was made and what it can do."""

CHECKSUMS = "checksums.json"
"""The file that holds the SHA-256 of every other one, by its path."""


def embedded(name: str) -> Path | None:
    """Return the folder of a demonstration model, or None if the name is none of `NAMES`."""
    return data_folder() / name.removeprefix("vitascope/") if name in NAMES else None


def data_folder() -> Path:
    """Return the folder that holds them all."""
    return Path(__file__).parent / "data"


def damaged(folder: Path) -> list[str]:
    """Return the paths below a folder that are missing, altered, or not among its checksums, sorted.

    Args:
        folder: One like `data_folder`.
    """
    known: dict[str, str] = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    found = checksums(folder)
    return sorted(path for path in known.keys() | found.keys() if known.get(path) != found.get(path))


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder but the list itself, by path."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CHECKSUMS)
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
