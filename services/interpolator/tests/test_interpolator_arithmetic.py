"""The arithmetic, against RIFE's literal procedure with the recursion written out here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from bench import literal_rife
from vitascope_interpolator.architecture import RIFE_4_22_LITE, RIFE_4_25
from vitascope_interpolator.interpolation import interpolate
from vitascope_interpolator.network import Network

AMPLE = 2**28
CPU = torch.device("cpu")


def literal(weights, frames, exp, scale):
    """Return what a recursion makes that halves one gap after another and rounds only at the end."""

    def between(first, second, depth):
        if depth == 0:
            return []
        middle = literal_rife.middle(weights, first, second, scale)
        return [*between(first, middle, depth - 1), middle, *between(middle, second, depth - 1)]

    pictures = [torch.from_numpy(frame.copy()).permute(2, 0, 1)[None] / 255 for frame in frames]
    made = []
    for first, second in itertools.pairwise(pictures):
        made += [first, *between(first, second, exp)]
    stacked = torch.cat([*made, pictures[-1]]).permute(0, 2, 3, 1).numpy()
    return np.rint(stacked * np.float32(255)).clip(0, 255).astype(np.uint8)


def apart(made, expected):
    assert made.shape == expected.shape
    return np.abs(made.astype(int) - expected)


def assert_alike(made, expected):
    differences = apart(made, expected)
    assert np.mean(differences <= 1) >= 0.999
    # Nearly all are equal: a middle that was rounded before the next level would show here.
    assert np.mean(differences == 0) >= 0.995


@pytest.mark.parametrize("exp", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_batched_levels_equal_the_literal_recursion(weights, network, clip, exp, scale) -> None:
    given = clip(2, 30, 45)

    made = interpolate(network, given, None, exp=exp, scale=scale, budget=AMPLE)

    assert_alike(made, literal(weights, given, exp, scale))


@pytest.mark.parametrize(("frames", "height", "width"), [(3, 33, 47), (4, 64, 65), (2, 96, 31), (3, 1, 1), (1, 40, 40)])
def test_any_number_and_size_of_frames_equals_the_literal_recursion(
    weights, network, clip, frames, height, width
) -> None:
    given = clip(frames, height, width)

    made = interpolate(network, given, None, exp=2, scale=0.5, budget=AMPLE)

    assert_alike(made, literal(weights, given, exp=2, scale=0.5))


@pytest.mark.parametrize(("exp", "scale"), [(1, 1.0), (2, 0.5), (1, 4.0)])
def test_five_stages_equal_the_literal_recursion(weights_4_25, clip, exp, scale) -> None:
    given = clip(2, 50, 70)
    network = Network(RIFE_4_25, weights_4_25, CPU)

    made = interpolate(network, given, None, exp=exp, scale=scale, budget=AMPLE)

    assert_alike(made, literal(weights_4_25, given, exp, scale))


def test_a_still_clip_equals_the_literal_recursion(weights, network, clip) -> None:
    given = clip(1, 40, 60).repeat(3, axis=0)

    assert_alike(
        interpolate(network, given, None, exp=2, scale=1.0, budget=AMPLE), literal(weights, given, exp=2, scale=1.0)
    )


def test_half_precision_convolutions_stay_within_a_level(weights, clip) -> None:
    given = clip(3, 64, 96)
    network = Network(RIFE_4_22_LITE, weights, CPU, torch.float16)

    made = interpolate(network, given, None, exp=1, scale=1.0, budget=AMPLE)

    assert np.mean(apart(made, literal(weights, given, 1, 1.0)) <= 1) >= 0.999


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("exp", [1, 2, 3, 4])
def test_given_frames_stay_where_and_what_they_are(network, clip, frames, exp) -> None:
    given = clip(frames, 20, 30)

    made = interpolate(network, given, None, exp=exp, scale=1.0, budget=AMPLE)

    assert made.shape == ((frames - 1) * 2**exp + 1, 20, 30, 3)
    assert np.array_equal(made[:: 2**exp], given)


def constant(weights, share):
    """Return weights that move nothing and mix ``share`` of the first frame with the rest of the second."""
    # Every fourth channel group of the last stage belongs to one output; the mask is the fifth.
    changed = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    changed["block3.lastconv.0.bias"][16:20] = float(np.log(share / (1 - share)))
    return changed


def test_a_clip_that_stands_still_comes_back_without_flicker(weights, clip) -> None:
    network = Network(RIFE_4_22_LITE, constant(weights, 0.3), CPU)
    given = clip(1, 37, 51).repeat(2, axis=0)

    made = interpolate(network, given, None, exp=3, scale=1.0, budget=AMPLE)

    assert np.array_equal(made, given[:1].repeat(9, axis=0))


@pytest.mark.parametrize(("share", "level"), [(0.75, 100), (0.25, 101)])
def test_levels_are_rounded_to_nearest(weights, share, level) -> None:
    network = Network(RIFE_4_22_LITE, constant(weights, share), CPU)
    given = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (100, 101)])

    made = interpolate(network, given, None, exp=1, scale=1.0, budget=AMPLE)

    assert np.unique(made[1]).tolist() == [level]


def test_middles_stay_unrounded_between_levels(weights) -> None:
    network = Network(RIFE_4_22_LITE, constant(weights, 0.5), CPU)
    given = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (0, 11)])

    made = interpolate(network, given, None, exp=3, scale=1.0, budget=AMPLE)

    # 11 / 8 apart; from a middle of 6 instead of 5.5 the second would be 3 / 2 and the seventh 9.75.
    assert made[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 6, 7, 8, 10, 11]


def test_the_order_of_frames_is_kept(weights) -> None:
    network = Network(RIFE_4_22_LITE, constant(weights, 0.5), CPU)
    given = np.stack([np.full((20, 20, 3), value, np.uint8) for value in (0, 80, 16, 240)])

    made = interpolate(network, given, None, exp=3, scale=1.0, budget=1)

    expected = np.interp(np.arange(25) / 8, np.arange(4), (0, 80, 16, 240))
    assert made[:, 0, 0, 0].tolist() == expected.tolist()


def counting(network, monkeypatch) -> list[int]:
    """Return a list that grows by the number of pairs with every batch."""
    pairs, between = [], network.between

    def counted(frames, scale):
        pairs.append(len(frames) - 1)
        return between(frames, scale)

    monkeypatch.setattr(network, "between", counted)
    return pairs


def test_a_budget_bounds_the_batch_and_changes_no_frame(network, clip, monkeypatch) -> None:
    given = clip(6, 40, 60)
    whole = interpolate(network, given, None, exp=2, scale=1.0, budget=AMPLE)
    pairs = counting(network, monkeypatch)

    one_by_one = interpolate(network, given, None, exp=2, scale=1.0, budget=1)
    alone, pairs[:] = pairs[:], []
    two_by_two = interpolate(network, given, None, exp=2, scale=1.0, budget=5_000_000)

    assert (alone, pairs) == ([1] * 15, [2, 2, 2, 2, 2, 2, 1, 2])
    assert apart(one_by_one, whole).max() <= 1
    assert apart(two_by_two, whole).max() <= 1


@pytest.mark.parametrize(("exp", "scale", "most"), [(1, 1.0, 2), (4, 1.0, 1), (1, 2.0, 1), (1, 0.5, 4)])
def test_a_budget_counts_what_levels_and_scales_need(network, clip, monkeypatch, exp, scale, most) -> None:
    pairs = counting(network, monkeypatch)

    interpolate(network, clip(6, 64, 64), None, exp=exp, scale=scale, budget=4_100_000)

    assert max(pairs) == most


def test_every_gap_of_a_level_is_in_one_batch_if_memory_allows(network, clip, monkeypatch) -> None:
    pairs = counting(network, monkeypatch)

    interpolate(network, clip(5, 20, 30), None, exp=3, scale=1.0, budget=AMPLE)

    assert pairs == [4, 8, 16]


def test_each_frame_is_encoded_once_and_those_of_the_last_level_never(network, clip, monkeypatch) -> None:
    frames, encode = [], network.encode

    def counted(batch):
        frames.append(len(batch))
        return encode(batch)

    monkeypatch.setattr(network, "encode", counted)
    interpolate(network, clip(4, 20, 30), None, exp=2, scale=1.0, budget=1)

    assert sum(frames) == 4 + 3


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1, 1, 1), (2, 3, 2), (1, 6), (6, 1)])
@pytest.mark.parametrize("exp", [1, 2])
def test_any_cut_of_a_clip_makes_the_same_frames(network, clip, sizes, exp) -> None:
    given = clip(7, 30, 50)
    whole = interpolate(network, given, None, exp=exp, scale=1.0, budget=AMPLE)

    parts, start = [], 0
    for size in sizes:
        lead = given[start - 1] if start else None
        parts.append(interpolate(network, given[start : start + size], lead, exp=exp, scale=1.0, budget=AMPLE))
        start += size

    assert apart(np.concatenate(parts), whole).max() <= 1


def test_a_fourth_channel_moves_with_the_colours_and_changes_none(network, clip) -> None:
    colours = clip(3, 40, 60)
    given = np.concatenate([colours, colours[..., 1:2]], axis=3)

    made = interpolate(network, given, None, exp=2, scale=1.0, budget=AMPLE)

    assert np.array_equal(made[..., :3], interpolate(network, colours, None, exp=2, scale=1.0, budget=AMPLE))
    assert np.array_equal(made[..., 3], made[..., 1])


def test_frames_that_may_not_be_written_are_taken(network, clip) -> None:
    given = clip(2, 20, 30)
    given.setflags(write=False)

    assert len(interpolate(network, given, given[0], exp=1, scale=1.0, budget=AMPLE)) == 4


def test_grids_are_kept_for_a_few_shapes_only(weights, clip) -> None:
    network = Network(RIFE_4_22_LITE, weights, CPU)

    for width in range(32, 32 * 10, 32):
        interpolate(network, clip(2, 32, width), None, exp=1, scale=1.0, budget=AMPLE)

    assert len(network._sample._grids) == 16
