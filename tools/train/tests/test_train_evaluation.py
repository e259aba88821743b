"""The packed models on what they never saw, in short; `make bench demo` measures them in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.train import enlargement, evaluation, interpolation
from vitascope_models.catalogue import DEMO, DEMO_ESRGAN, DEMO_RIFE, embedded

CLIPS = 10


def _folder(name: str) -> Path:
    folder = embedded(name)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def figures() -> evaluation.Figures:
    return evaluation.from_frames(evaluation.opened(_folder(DEMO)), evaluation.held_out(CLIPS))


@pytest.mark.parametrize(
    ("part", "least"), [("colour", 0.8), ("background", 0.8), ("shape", 0.5), ("direction", 0.5)], ids=str
)
def test_a_clip_from_a_first_frame_keeps_the_object_and_moves_it_as_told(
    figures: evaluation.Figures, part: str, least: float
) -> None:
    assert getattr(figures, part) >= least


def test_new_frames_are_nearer_to_the_true_ones_than_averages_are() -> None:
    measured = interpolation.evaluate(_folder(DEMO_RIFE), 4)

    assert measured.captions.gain > 5
    assert measured.drawings.gain > 2


def test_enlarged_pictures_are_nearer_to_the_true_ones_than_bicubic_ones_are() -> None:
    measured = enlargement.evaluate(_folder(DEMO_ESRGAN), 4)

    assert measured.captions.gain > 3
    assert measured.drawings.gain > 2
