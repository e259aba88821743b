"""The packed models on what they never saw, in short; `make bench demo` measures them in full."""

from __future__ import annotations

from typing import Any

import pytest

from tools.train import enlargement, evaluation, interpolation
from vitascope_models.catalogue import DEMO, DEMO_ESRGAN, DEMO_RIFE, DEMO_STRIPES

CLIPS = 10


@pytest.fixture(scope="module")
def pipe() -> Any:
    return evaluation.opened(evaluation.packed(DEMO))


@pytest.fixture(scope="module")
def from_texts(pipe: Any) -> evaluation.Figures:
    return evaluation.from_texts(pipe, evaluation.held_out(CLIPS))


@pytest.fixture(scope="module")
def from_frames(pipe: Any) -> evaluation.Figures:
    return evaluation.from_frames(pipe, evaluation.held_out(CLIPS))


@pytest.mark.parametrize(
    ("part", "least"), [("colour", 0.9), ("background", 0.9), ("shape", 0.7), ("direction", 0.7)], ids=str
)
def test_a_clip_from_a_text_shows_what_it_says(from_texts: evaluation.Figures, part: str, least: float) -> None:
    assert getattr(from_texts, part) >= least


@pytest.mark.parametrize(
    ("part", "least"), [("colour", 0.9), ("background", 0.9), ("shape", 0.7), ("direction", 0.7)], ids=str
)
def test_a_clip_from_a_first_frame_keeps_the_object_and_moves_it_as_told(
    from_frames: evaluation.Figures, part: str, least: float
) -> None:
    assert getattr(from_frames, part) >= least


def test_the_adapter_stripes_what_is_plain_without_it(pipe: Any) -> None:
    wanted = evaluation.held_out(4)
    plain = evaluation.stripes(pipe, wanted)
    pipe.load_lora_weights(evaluation.packed(DEMO_STRIPES))
    try:
        striped = evaluation.stripes(pipe, wanted)
    finally:
        pipe.unload_lora_weights()

    assert striped > plain + 0.15


def test_new_frames_are_nearer_to_the_true_ones_than_averages_are() -> None:
    measured = interpolation.evaluate(evaluation.packed(DEMO_RIFE), 4)

    assert measured.captions.gain > 4
    assert measured.captions_twice.gain > 3
    assert measured.captions_apart.gain > 15
    assert measured.drawings.gain > 3


def test_enlarged_pictures_are_nearer_to_the_true_ones_than_bicubic_ones_are() -> None:
    measured = enlargement.evaluate(evaluation.packed(DEMO_ESRGAN), 4)

    assert measured.captions.gain > 3
    assert measured.drawings.gain > 2
