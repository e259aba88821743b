"""Ids, sizes, cuts, limits, qualities and error texts."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vitascope_core.card import Limits
from vitascope_core.errors import InvalidRequest, UnknownField, shown
from vitascope_core.geometry import (
    CHUNK_BYTES,
    MIN_SEGMENT_S,
    MOST_CHUNK_BYTES,
    cut_frames,
    cuts_of,
    interpolated_start,
    parse_size,
)
from vitascope_core.job import JobKind, new_job_id
from vitascope_core.plan import InterpolateOptions, Plan, UpscaleOptions
from vitascope_core.quality import compression_of


def test_ids_sort_by_creation() -> None:
    start = 1_795_000_000_000_000_000
    ids = [new_job_id(JobKind.VIDEO, start + step * 1000) for step in range(50)]

    assert ids == sorted(ids)
    assert all(len(i) == len("video_") + 32 for i in ids)


def test_ids_carry_the_version_and_variant_of_uuid_7() -> None:
    digits = new_job_id(JobKind.IMAGE, 1_795_000_000_123_456_789).removeprefix("img_")

    assert (digits[12], digits[16] in "89ab", int(digits[:12], 16)) == ("7", True, 1_795_000_000_123)


@pytest.mark.parametrize("text", ["832x480", "832X480", " 832x480 "])
def test_a_size_is_read(text: str) -> None:
    assert parse_size(text) == (832, 480)


@pytest.mark.parametrize("text", ["", "832", "0x480", "-8x8", "8x", "8.5x8", "auto", "1x9999999"])
def test_what_is_no_size_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(InvalidRequest, match="WIDTHxHEIGHT") as caught:
        parse_size(text)

    assert caught.value.field == "size"


@pytest.mark.parametrize(
    ("frames", "size", "cuts"),
    [(9, 4, (4, 4, 1)), (8, 4, (4, 4)), (3, 4, (3,)), (81, 40, (40, 41)), (90, 40, (40, 40, 10)), (1, 1, (1,))],
)
def test_cuts_add_up_and_tiny_remainders_join_their_neighbour(frames: int, size: int, cuts: tuple[int, ...]) -> None:
    assert cuts_of(frames, size) == cuts


def test_chunks_hold_about_sixteen_mebibytes() -> None:
    cuts = cut_frames(81, 832, 480, Fraction(16), Plan())

    assert sum(cuts) == 81
    assert all(cut * 832 * 480 * 3 <= CHUNK_BYTES * 1.25 for cut in cuts)


@pytest.mark.parametrize("exp", [1, 2, 4])
def test_chunks_stay_about_as_large_when_frames_are_put_between_theirs(exp: int) -> None:
    cuts = cut_frames(81, 832, 480, Fraction(16), Plan(interpolate=InterpolateOptions(exp)))

    assert all(cut == 1 or cut * 2**exp * 832 * 480 * 3 <= CHUNK_BYTES * 1.25 for cut in cuts)


def test_chunks_of_an_upscaled_video_are_long_enough_to_compress() -> None:
    cuts = cut_frames(81, 1280, 720, Fraction(16), Plan(upscale=UpscaleOptions()))

    assert all(cut >= 32 for cut in cuts)


@pytest.mark.parametrize("fps", [Fraction(8), Fraction(16), Fraction(24000, 1001), Fraction(25), Fraction(30)], ids=str)
@pytest.mark.parametrize("exp", [0, 1, 2])
def test_every_segment_is_long_enough_once_frames_are_put_between_its_own(fps: Fraction, exp: int) -> None:
    plan = Plan(interpolate=InterpolateOptions(exp) if exp else None, upscale=UpscaleOptions())
    factor = plan.frame_factor
    for frames in range(140, 260):
        first, *others = cut_frames(frames, 640, 480, fps, plan)
        made = [(first - 1) * factor + 1, *(cut * factor for cut in others)]

        assert len(made) > 1
        assert min(made) >= MIN_SEGMENT_S * fps * factor


def test_chunks_of_large_frames_stay_bounded_all_the_same() -> None:
    cuts = cut_frames(200, 3840, 2160, Fraction(60), Plan(upscale=UpscaleOptions()))

    assert all(cut * 3840 * 2160 * 3 <= MOST_CHUNK_BYTES for cut in cuts[:-1])
    assert cuts[-1] < 2 * cuts[0]


@pytest.mark.parametrize(("start", "factor", "mapped"), [(0, 4, 0), (12, 2, 23), (1, 4, 1)])
def test_interpolated_chunks_begin_behind_their_lead(start: int, factor: int, mapped: int) -> None:
    assert interpolated_start(start, factor) == mapped


@pytest.mark.parametrize(
    ("limits", "value", "said"),
    [
        (Limits(16, 1024, 16), 100, "multiple of 16, from 16 to 1024 (nearest: 96 or 112)"),
        (Limits(1, 81, 4), 80, "multiple of 4 plus 1, from 1 to 81 (nearest: 77 or 81)"),
        (Limits(1, 50), 51, "from 1 to 50"),
        (Limits(16, 1024, 16), 2048, "multiple of 16, from 16 to 1024"),
    ],
)
def test_a_refused_number_names_the_nearest_allowed_ones(limits: Limits, value: int, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        limits.check("width", value)

    assert str(caught.value) == f"width must be {'a ' if 'multiple' in said else ''}{said}, got {value}"


def test_allowed_numbers_pass() -> None:
    assert [Limits(1, 81, 4).check("num_frames", value) for value in (1, 5, 81)] == [1, 5, 81]


@pytest.mark.parametrize(
    ("kind", "quality", "compression", "number"),
    [
        (JobKind.IMAGE, None, None, 75),
        (JobKind.VIDEO, "default", None, 50),
        (JobKind.VIDEO, "maximum", None, 100),
        (JobKind.IMAGE, "high", None, 90),
        (JobKind.IMAGE, "medium", None, 55),
        (JobKind.IMAGE, "low", None, 35),
        (JobKind.VIDEO, "low", 80, 80),
        (JobKind.IMAGE, None, 0, 0),
    ],
)
def test_the_quality_table(kind: JobKind, quality: str | None, compression: int | None, number: int) -> None:
    assert compression_of(kind, quality, compression) == number


@pytest.mark.parametrize(
    ("kind", "quality", "compression", "field"),
    [
        (JobKind.VIDEO, None, 9, "output_compression"),
        (JobKind.IMAGE, None, 101, "output_compression"),
        (JobKind.IMAGE, "best", None, "output_quality"),
    ],
)
def test_qualities_that_do_not_exist_are_refused(
    kind: JobKind, quality: str | None, compression: int | None, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compression_of(kind, quality, compression)

    assert caught.value.field == field


def test_errors_do_not_repeat_whole_uploads() -> None:
    assert len(shown("x" * 10_000)) == 80


def test_an_unknown_field_names_the_nearest() -> None:
    assert str(UnknownField("promt", ["prompt"])) == "Unknown parameter: promt; did you mean prompt?"
