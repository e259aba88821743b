"""What comes out: the literal procedure's pixels, however the work is divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from bench import literal_esrgan
from vitascope_upscaler import division
from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.division import Division, divided, most_pixels
from vitascope_upscaler.resampling import Resampler
from vitascope_upscaler.upscaling import BeyondBudget, upscale

GIB = 2**30
CPU = torch.device("cpu")

X1, X2, X4, X8 = Rrdb(8, 1, 4, 4, 2), Rrdb(8, 1, 4, 2, 2), Rrdb(8, 2, 4, 1, 2), Rrdb(8, 1, 4, 1, 3)
COMPACT = Compact(8, 3, 4)
EVERY = [X1, X2, X4, X8, Rrdb(8, 1, 4, 1, 1), COMPACT, Compact(8, 0, 2), Compact(8, 1, 1)]

named = {"ids": lambda value: value.name if isinstance(value, (Rrdb, Compact)) else None}


def agrees(made, expected) -> bool:
    """Whether nothing is further off than a rounding apart, and next to nothing that."""
    off = np.abs(made.astype(int) - expected)
    return made.shape == expected.shape and off.max() <= 1 and np.mean(off == 0) > 0.998


@pytest.mark.parametrize("architecture", EVERY, **named)
@pytest.mark.parametrize("size", [(24, 32), (21, 31)])
def test_a_network_is_the_literal_one(network, weights_of, clip, architecture, size) -> None:
    frames = clip(2, *size)

    made = upscale(network(architecture), frames, architecture.scale, budget=GIB)

    assert agrees(made, literal_esrgan.upscale(weights_of(architecture), frames, architecture.scale))


@pytest.mark.parametrize("architecture", [X2, X4, COMPACT], **named)
@pytest.mark.parametrize("scale", [1, 1.5, 2, 3, 3.7, 4, 5, 6, 7, 8])
def test_every_scale_is_made_by_interpolation(network, weights_of, clip, architecture, scale) -> None:
    frames = clip(1, 21, 26)

    made = upscale(network(architecture), frames, scale, budget=GIB)

    assert made.shape[1:3] == (int(21 * scale), int(26 * scale))
    assert agrees(made, literal_esrgan.upscale(weights_of(architecture), frames, scale))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (3, 2), (5, 1)])
@pytest.mark.parametrize("architecture", [X1, X2, X4, COMPACT], **named)
def test_the_smallest_frames_are_enlarged(network, clip, architecture, size) -> None:
    made = upscale(network(architecture), clip(1, *size), 4, budget=GIB)

    assert made.shape == (1, 4 * size[0], 4 * size[1], 3)


@pytest.mark.parametrize("before", [7, 8, 33])
@pytest.mark.parametrize("after", [1, 5, 8, 12, 33, 64])
def test_a_resize_is_pytorchs_bicubic(before, after) -> None:
    x = torch.rand(1, 3, before, before + 3, generator=torch.Generator().manual_seed(1)) * 3 - 1
    size = after, 2 * after
    expected = F.interpolate(x, size=size, mode="bicubic", align_corners=False)

    made = Resampler((before, before + 3), size, CPU).resized(x, 0, after, 0)

    assert torch.allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(40, 15), (40, 100), (33, 33), (40, 39)])
def test_parts_of_a_resize_are_exactly_those_of_the_whole(before, after) -> None:
    x = torch.rand(2, 3, before, 9, generator=torch.Generator().manual_seed(1))
    resampler = Resampler((before, 9), (after, 20), CPU)
    whole = resampler.resized(x, 0, after, 0)
    for begin, end in ((0, 1), (3, 9), (after - 2, after)):
        low, high = resampler.needed(begin, end)

        assert torch.equal(resampler.resized(x[:, :, low:high], begin, end, low), whole[:, :, begin:end])


@pytest.fixture
def divide(monkeypatch):
    """Says how frames are divided."""

    def fixed(batch, band, strip):
        monkeypatch.setattr("vitascope_upscaler.upscaling.divided", lambda *_, **__: Division(batch, band, strip))

    return fixed


# Large enough for one kind of convolution throughout: tiny ones are summed in another order.
SIZE = 100, 80
WIDE_X2, WIDE_X4, WIDE_COMPACT = Rrdb(16, 1, 8, 2, 2), Rrdb(16, 1, 8, 1, 2), Compact(16, 3, 4)
WIDE = [WIDE_X2, WIDE_X4, WIDE_COMPACT]


def floats(monkeypatch):
    """Collects what is rounded, before it is."""
    from vitascope_upscaler import upscaling

    seen, rounded = [], upscaling._as_bytes
    monkeypatch.setattr(upscaling, "_as_bytes", lambda frames: (seen.append(frames.clone()), rounded(frames))[1])
    return seen


@pytest.mark.parametrize("architecture", WIDE, **named)
@pytest.mark.parametrize("scale", [4, 1.5])
@pytest.mark.parametrize("strip", [24, 37])
def test_strips_are_exactly_the_whole_frame(network, clip, divide, monkeypatch, architecture, scale, strip) -> None:
    frames, seen = clip(1, *SIZE), floats(monkeypatch)
    divide(1, 100, 100)
    whole = upscale(network(architecture), frames, scale, budget=GIB)
    expected = seen.pop()
    divide(1, 100, strip)
    made = upscale(network(architecture), frames, scale, budget=GIB)

    assert len(seen) > 1
    assert torch.equal(torch.cat(seen, 2), expected)
    assert np.array_equal(made, whole)


@pytest.mark.parametrize("architecture", [WIDE_X2, WIDE_X4], **named)
@pytest.mark.parametrize("scale", [4, 3])
@pytest.mark.parametrize(("band", "strip"), [(20, 20), (33, 10)])
def test_bands_of_the_trunk_are_exactly_the_whole_frame(
    network, clip, divide, monkeypatch, architecture, scale, band, strip
) -> None:
    frames, seen = clip(1, *SIZE), floats(monkeypatch)
    divide(1, 100, 100)
    upscale(network(architecture), frames, scale, budget=GIB)
    expected = seen.pop()
    divide(1, band, strip)
    upscale(network(architecture), frames, scale, budget=GIB)

    assert len(seen) > 1
    assert torch.equal(torch.cat(seen, 2), expected)


@pytest.mark.parametrize(("architecture", "part"), [(WIDE_X4, "tail"), (WIDE_X4, "body"), (WIDE_COMPACT, "tail")])
def test_the_halo_is_no_larger_than_what_the_network_sees(network, clip, architecture, part) -> None:
    net = network(architecture)
    features = torch.rand(1, 3, 60, 40, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        if part == "tail":
            features = net.body(features)
        run, halo, factor = (net.tail, net.tail_halo, net.factor) if part == "tail" else (net.body, net.body_halo, 1)
        whole = run(features)
        parts = [run(features[:, :, 30 - seen :])[:, :, seen * factor :] for seen in (halo, halo - 1)]

    exact, short = (torch.allclose(each, whole[:, :, 30 * factor :], atol=1e-6) for each in parts)
    assert exact
    # The weights of the trunk fade before its edge is reached.
    assert not short or part == "body"


@pytest.mark.parametrize("architecture", [X2, X4, COMPACT], **named)
def test_a_batch_is_its_frames(network, clip, divide, architecture) -> None:
    frames = clip(5, 20, 30)
    divide(1, 100, 100)
    single = upscale(network(architecture), frames, 3, budget=GIB)
    divide(2, 100, 7)
    batched = upscale(network(architecture), frames, 3, budget=GIB)

    assert agrees(batched, single)


@pytest.mark.parametrize("scale", [4, 2, 1])
def test_opacity_is_interpolated_and_colours_do_not_heed_it(network, clip, divide, scale) -> None:
    colours = clip(2, 20, 30)
    opacity = np.ascontiguousarray(255 - colours[..., :1])
    divide(2, 100, 6)
    made = upscale(network(X4), np.concatenate((colours, opacity), 3), scale, budget=GIB)
    size = 20 * scale, 30 * scale
    expected = F.interpolate(
        torch.from_numpy(opacity).permute(0, 3, 1, 2).float(), size=size, mode="bicubic", align_corners=False
    )

    assert np.array_equal(made[..., :3], upscale(network(X4), colours, scale, budget=GIB))
    assert np.abs(made[..., 3] - expected.clamp(0, 255).round()[:, 0].numpy()).max() <= 1


def test_what_is_given_may_be_read_only_and_stays_as_it_is(network, clip) -> None:
    frames = clip(2, 9, 9)
    before = frames.copy()
    frames.flags.writeable = False

    upscale(network(X4), frames, 4, budget=GIB)

    assert np.array_equal(frames, before)


REAL = Rrdb(64, 23, 32, 1, 2)


@pytest.mark.parametrize("architecture", [REAL, Rrdb(64, 23, 32, 2, 2), Compact(64, 32, 4)], **named)
@pytest.mark.parametrize("size", [(480, 832), (720, 1280), (97, 3000)])
@pytest.mark.parametrize("budget", [2 * GIB, 3 * GIB, 4 * GIB])
def test_a_division_fits_the_budget(stand_in, architecture, size, budget) -> None:
    net = stand_in(architecture)
    height, width = (-(-side // net.cell) for side in size)
    found = divided(net, height, width, 16 * net.cell**2, budget, banded=True)

    assert found is not None
    halo = net.body_halo + net.tail_halo
    rows = min(height, found.band + 2 * halo) if found.band < height else height
    image = 12 * net.cell**2
    assert rows * width * (net.body_bytes + image) <= budget
    seen = min(rows, found.strip + 2 * net.tail_halo) if found.strip < rows else rows
    assert rows * width * (net.held_bytes + image) + seen * width * net.tail_bytes <= budget


def test_a_strip_leaves_room_for_what_the_trunk_made(stand_in) -> None:
    net, height, width = stand_in(REAL), 60, 6000
    budget = height * width * (net.body_bytes + 12)
    found = divided(net, height, width, 0, budget, banded=False)

    held = height * width * (net.held_bytes + 12)
    assert held + (found.strip + 2 * net.tail_halo) * width * net.tail_bytes <= budget


def test_no_tensor_is_beyond_32_bit_indices(stand_in) -> None:
    net = stand_in(Rrdb(64, 23, 32, 1, 3), "cuda", torch.float16)
    found = divided(net, 200, 20_000, 64, 120 * GIB, banded=False)

    assert (found.strip + 2 * net.tail_halo) * 20_000 * 64 * 64 < 2**31
    assert most_pixels(net, 120 * GIB) * 192 < 2**31


@pytest.fixture(scope="module")
def stand_in(network):
    """The figures of a large network, without its weights."""
    from vitascope_upscaler.compact import CompactNetwork
    from vitascope_upscaler.rrdb import RrdbNetwork

    def make(architecture, device="cpu", dtype=torch.float32):
        kind = RrdbNetwork if isinstance(architecture, Rrdb) else CompactNetwork
        net = kind.__new__(kind)
        net.architecture, net.device, net.dtype = architecture, torch.device(device), dtype
        return net

    return make


def test_the_memory_of_a_trunk_is_as_documented(stand_in) -> None:
    net = stand_in(REAL, "cuda", torch.float16)

    assert net.body_bytes == 2 * (3 * 64 + 2 * 192) == 1152
    assert (net.body_halo + net.tail_halo, stand_in(Compact(64, 32, 4)).tail_halo) == (15 * 23 + 4, 34)
    assert most_pixels(net, 8 * GIB) == 8 * GIB // (1152 + 12)


def test_a_frame_beyond_the_budget_is_refused_or_cut_into_bands(stand_in) -> None:
    net = stand_in(REAL)
    side = int(most_pixels(net, 4 * GIB) ** 0.5)

    assert divided(net, side, side, 16, 4 * GIB, banded=False).band == side
    assert divided(net, side + 1, side + 1, 16, 4 * GIB, banded=False) is None
    assert 0 < divided(net, 2000, 2000, 16, 4 * GIB, banded=True).band < 2000
    assert divided(net, 20_000, 20_000, 16, 4 * GIB, banded=True) is None


@pytest.mark.parametrize("budget", [1, 2000, 20_000])
def test_too_little_memory_is_told(network, clip, budget) -> None:
    for architecture in (X4, COMPACT):
        with pytest.raises(BeyondBudget):
            upscale(network(architecture), clip(1, 40, 40), 4, budget=budget)


def test_a_gpu_takes_several_frames_at_once(stand_in) -> None:
    net = stand_in(REAL, "cuda", torch.float16)

    assert divided(net, 480, 832, 16, 8 * GIB, banded=False).batch == 2
    assert divided(net, 64, 64, 16, 8 * GIB, banded=False).batch == 256
    assert divided(net, 2000, 2000, 16, 8 * GIB, banded=False).batch == 1
    assert divided(stand_in(REAL), 64, 64, 16, 8 * GIB, banded=False).batch == 1


@pytest.mark.parametrize("banded", [False, True])
def test_a_small_budget_changes_no_pixel(network, clip, monkeypatch, banded) -> None:
    monkeypatch.setattr(division, "_ROWS_A_HALO", 1)
    net, frames = network(WIDE_X4), clip(1, *SIZE)
    whole = upscale(net, frames, 4, budget=GIB)
    least = 80 * 100 * (net.body_bytes + 12)
    budget = least - 80 * 12 * net.body_bytes if banded else least

    assert np.array_equal(upscale(net, frames, 4, budget=budget, banded=banded), whole)
