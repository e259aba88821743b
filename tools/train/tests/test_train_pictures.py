"""Random drawings: what is drawn is the function of place and time that it is taken for."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from tools.train import enlargement, interpolation
from tools.train.drawings import SHAPES, View
from tools.train.pictures import MIDDLE, Course, Movies, Pattern, Thing, captioned, held_out, movies, softened
from tools.train.rife import fetched

SIDE = 64


def course(centre=(0.5, 0.5), velocity=(0.0, 0.0), radius=0.25, growth=0.0, angle=0.0, spin=0.0) -> Course:
    one = torch.ones(1)
    return Course(
        torch.tensor([centre]), torch.tensor([velocity]), torch.zeros(1, 2),
        radius * one, growth * one, angle * one, spin * one,
    )  # fmt: skip


def plain(colour: float) -> Pattern:
    grey = torch.full((1, 3), colour)
    return Pattern(grey, grey, torch.zeros(1, 2), torch.zeros(1), torch.zeros(1, dtype=torch.bool))


def one_object(course_: Course, shape: str = "star", pattern: Pattern | None = None) -> Movies:
    number = torch.tensor([SHAPES.index(shape)])
    thing = Thing(number, torch.zeros(1), torch.ones(1), course_, pattern or plain(1.0))
    return Movies((course(centre=(0.0, 0.0), radius=1.0), plain(0.0)), [thing])


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_mirror_image_of_itself(shape) -> None:
    frame = one_object(course(), shape).frame(MIDDLE, View(SIDE))

    assert torch.allclose(frame, frame.flip(3), atol=2e-3)


@pytest.mark.parametrize(("shape", "area"), [("circle", 0.95**2 * torch.pi), ("square", 1.72**2)])
def test_a_shape_covers_its_area(shape, area) -> None:
    radius = 0.25

    cover = one_object(course(radius=radius), shape).frame(MIDDLE, View(SIDE))[0, 0]

    assert cover.mean().item() == pytest.approx(area * radius**2, rel=0.01)


def test_a_stroke_covers_its_area() -> None:
    radius, thick = 0.3, 0.2
    stroke = Thing(None, torch.tensor([thick]), torch.ones(1), course(radius=radius, angle=0.7), plain(1.0))

    cover = stroke.cover(MIDDLE, View(SIDE))

    assert cover.mean().item() == pytest.approx((4 * thick * (1 - thick) + torch.pi * thick**2) * radius**2, rel=0.01)


def test_a_frame_later_is_the_frame_moved_by_the_way() -> None:
    drawing = one_object(course(velocity=(8 / SIDE, -4 / SIDE)))

    before, after = (drawing.frame(time, View(SIDE)) for time in (0.0, 1.0))

    assert torch.allclose(after, before.roll((-4, 8), (2, 3)), atol=1e-5)


def test_a_part_of_a_picture_is_cut_from_the_whole() -> None:
    drawing = movies(6, SIDE, seeded())

    part = drawing.frame(MIDDLE, View(SIDE, 7, 20, 24, 16))

    assert torch.allclose(part, drawing.frame(MIDDLE, View(SIDE))[:, :, 20:36, 7:31], atol=1e-5)


def test_a_small_drawing_is_the_mean_of_the_large_one() -> None:
    drawing = movies(16, SIDE, seeded())

    small, large = (drawing.frame(MIDDLE, View(side)) for side in (SIDE, 4 * SIDE))

    assert (F.avg_pool2d(large, 4) - small).abs().mean() < 0.004


def test_the_surface_and_the_picture_are_inverse() -> None:
    moving = course(velocity=(0.2, 0.1), growth=0.2, angle=0.4, spin=0.5)
    x, y = View(SIDE).grid()

    again = moving.picture(0.8, *moving.surface(0.8, x, y))

    assert torch.allclose(torch.stack(again)[:, 0], torch.stack((x, y)), atol=1e-6)


def test_the_flow_leads_to_where_a_pixel_comes_from() -> None:
    turning = course(velocity=(0.1, 0.05), growth=0.1, spin=0.3)
    waves = replace(plain(0.2), second=torch.full((1, 3), 0.8), frequency=torch.tensor([[0.7, 0.4]]))
    drawing = one_object(turning, "square", waves)
    middle, first = (drawing.frame(time, View(SIDE)) for time in (MIDDLE, 0.0))

    flow = drawing.flow(MIDDLE, 0.0, View(SIDE))

    taken = fetched(first, flow)
    inside = slice(SIDE // 2 - 8, SIDE // 2 + 8)
    assert torch.allclose(taken[..., inside, inside], middle[..., inside, inside], atol=0.01)


def test_a_pattern_has_its_two_colours_alone_where_it_is_hard() -> None:
    striped = Pattern(
        first=torch.tensor([[1.0, 0.0, 0.0]]),
        second=torch.tensor([[0.0, 0.0, 1.0]]),
        frequency=torch.tensor([[4.0, 0.0]]),
        phase=torch.tensor([0.25]),
        hard=torch.tensor([True]),
    )
    x, y = View(SIDE).grid()

    row = striped.at(x[None], y[None], torch.tensor([1 / SIDE]))[0, 0, 0]

    assert torch.allclose(row.view(8, 8).mean(1), torch.tensor([1.0, 0.0] * 4).roll(1), atol=1e-4)


def test_drawings_are_the_same_for_the_same_seed() -> None:
    one, other = (movies(4, SIDE, seeded(3)).frame(0.3, View(SIDE)) for _ in range(2))

    assert torch.equal(one, other)


def test_drawings_are_finite_and_in_range() -> None:
    drawing = movies(64, SIDE, seeded())

    frame = drawing.frame(0.0, View(SIDE))

    assert frame.min() >= 0
    assert frame.max() <= 1


def test_softening_keeps_the_mean_and_treats_the_frames_of_a_picture_alike() -> None:
    frame = torch.rand(8, 3, 16, 16, generator=seeded())

    first, second = softened([frame, frame.flip(3)], seeded(), share=1.0)

    assert torch.allclose(first, second.flip(3), atol=1e-6)
    assert not torch.allclose(first, frame, atol=0.01)
    assert torch.allclose(first.mean((2, 3)), frame.mean((2, 3)), atol=0.02)


def test_what_is_measured_on_was_never_trained_on() -> None:
    trained = {scene.what for scene in captioned(200, Random(1))}

    assert trained.isdisjoint(scene.what for scene in held_out(200))


@pytest.mark.parametrize("seed", [1, 2, 3, 4])  # in two of these time runs backwards
def test_the_flow_of_a_pair_leads_to_its_first_and_to_its_second_frame(seed) -> None:
    pairs = interpolation.drawn_pairs(Random(seed), 16, SIDE)
    drawn = len(pairs.flow)

    def error(frame: torch.Tensor, flow: torch.Tensor) -> float:
        return (fetched(frame[:drawn], flow) - pairs.middle[:drawn]).square().mean().item()

    assert error(pairs.first, pairs.flow[:, :2]) < 0.7 * error(pairs.first, pairs.flow[:, 2:])
    assert error(pairs.second, pairs.flow[:, 2:]) < 0.7 * error(pairs.second, pairs.flow[:, :2])


def test_small_and_large_parts_show_the_same() -> None:
    pairs = enlargement.drawn_pairs(Random(1), 8)

    assert pairs.large.shape[2] == 4 * pairs.small.shape[2]
    assert (F.avg_pool2d(pairs.large, 4) - pairs.small).abs().mean() < 0.02
