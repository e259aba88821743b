from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bench.drawn_clip import drawn_clip
from vitascope_core.errors import InputLost
from vitascope_core.geometry import MIN_SEGMENT_S
from vitascope_core.job import JobKind
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_frames import testcard
from vitascope_frames.chunk import Frames
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.segment_object import check, sealed
from vitascope_frames.segments import SegmentsDiffer, encode_segment, join_segments, makes_segments
from vitascope_frames.video_file import encode_video, read_frames

RATES = [Fraction(25, 2), *map(Fraction, (16, 24, 25, 30, 32)), Fraction(24000, 1001), Fraction(60000, 1001)]
PATTERNS = [(1,), (2, 1), (13, 13, 1), (1, 2, 3, 13, 1, 1), (13, 13, 4)]
DEFAULT = VideoQuality.of(50)


def drawn(count: int, *, start: int = 0, size: tuple[int, int] = (64, 48)) -> list[Frames]:
    return [testcard.draw(start + place, *size, seed=1) for place in range(count)]


def cut(frames: Sequence[Frames], cuts: Iterable[int], fps: Fraction, quality: VideoQuality = DEFAULT) -> list[bytes]:
    segments, start = [], 0
    for count in cuts:
        segments.append(encode_segment(frames[start : start + count], count, start, fps, quality))
        start += count
    return segments


@dataclass(frozen=True)
class Played:
    """A file as a player meets it: what it complains about, and the times of packets and frames in frames."""

    warnings: list[str]
    decoding: list[Fraction]
    shown: list[Fraction]
    duration: Fraction


def played(path: Path, fps: Fraction) -> Played:
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture(local=False) as said, av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            packets = [packet for packet in container.demux(stream) if packet.size]
            decoding = [packet.dts * packet.time_base * fps for packet in packets]
            container.seek(0)
            shown = [frame.pts * frame.time_base * fps for frame in container.decode(stream)]
            return Played([line for _, _, line in said], decoding, shown, stream.duration * stream.time_base * fps)
    finally:
        av.logging.set_level(level)


def psnr(path: Path, frames: Sequence[Frames]) -> float:
    decoded = [frame for _, frame in read_frames(path, range(len(frames)))]
    error = np.mean((np.stack(decoded).astype(float) - np.stack(frames)) ** 2)
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("cuts", PATTERNS, ids=str)
@pytest.mark.parametrize("fps", RATES, ids=str)
def test_every_frame_of_a_joined_file_has_the_time_of_its_number(tmp_path, fps, cuts) -> None:
    total = sum(cuts)
    file = join_segments(cut(drawn(total), cuts, fps), fps, tmp_path / "joined.mp4")

    seen = played(file.path, fps)

    assert file.frames == total
    assert seen.shown == list(range(total))
    assert seen.decoding == list(range(int(seen.decoding[0]), int(seen.decoding[0]) + total))
    assert seen.duration == total
    assert seen.warnings == []


def test_a_damaged_picture_is_not_overlooked_here(tmp_path) -> None:
    fps = Fraction(16)
    path = join_segments(cut(drawn_clip(13, 192, 160), (13,), fps), fps, tmp_path / "joined.mp4").path
    data = bytearray(path.read_bytes())
    data[-400:-300] = bytes(100)
    path.write_bytes(data)

    with pytest.raises(av.error.InvalidDataError, match="h264"):
        played(path, fps)


@pytest.mark.parametrize("cuts", PATTERNS, ids=str)
def test_a_joined_file_shows_every_frame_once_and_in_order(tmp_path, cuts) -> None:
    total = sum(cuts)
    file = join_segments(cut(drawn(total), cuts, Fraction(16)), Fraction(16), tmp_path / "joined.mp4")

    assert [testcard.read_number(frame) for _, frame in read_frames(file.path, range(total))] == list(range(total))


def test_a_segment_plays_alone_and_starts_at_its_own_time() -> None:
    fps = Fraction(24000, 1001)
    (segment,) = [encode_segment(drawn(5, start=13), 5, 13, fps, DEFAULT)]

    at = segment.index(b"tfdt") + 4
    version_and_flags, time = segment[at : at + 4], segment[at + 4 : at + 12]

    assert version_and_flags[0] == 1
    assert int.from_bytes(time, "big") == 13 * 1001
    assert segment.count(b"moof") == 1


def test_segments_of_one_job_begin_with_the_same_header() -> None:
    frames = [*drawn(13), *np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)]
    segments = cut(frames, (1, 2, 10, 4), Fraction(16))

    assert len({segment[: segment.index(b"moof") - 4] for segment in segments}) == 1


def test_the_same_frames_make_the_same_bytes() -> None:
    clip = drawn_clip(13, 192, 160)

    assert len({encode_segment(clip, 13, 0, Fraction(16), DEFAULT) for _ in range(4)}) == 1


def test_segments_of_different_sizes_are_refused(tmp_path) -> None:
    fps = Fraction(16)
    small = encode_segment(drawn(2), 2, 0, fps, DEFAULT)
    large = encode_segment(drawn(2, size=(96, 64)), 2, 2, fps, DEFAULT)

    with pytest.raises(SegmentsDiffer, match=r"frame 2 \(96x64\).*64x48"):
        join_segments([small, large], fps, tmp_path / "joined.mp4")


@pytest.mark.parametrize(
    ("fps", "quality"),
    [(Fraction(16), VideoQuality(25, "ultrafast")), (Fraction(24), DEFAULT)],
    ids=["another preset", "another rate"],
)
def test_segments_of_different_encoder_settings_are_refused(tmp_path, fps, quality) -> None:
    first = encode_segment(drawn(4), 4, 0, Fraction(16), DEFAULT)
    other = encode_segment(drawn(4), 4, 4, fps, quality)

    with pytest.raises(SegmentsDiffer, match=r"frame 4 .* other parameter sets"):
        join_segments([first, other], Fraction(16), tmp_path / "joined.mp4")


@pytest.mark.parametrize("damage", [b"", b"no video", None], ids=["empty", "garbage", "cut short"])
def test_a_damaged_segment_is_a_lost_input(tmp_path, damage) -> None:
    segment = encode_segment(drawn(5), 5, 0, Fraction(16), DEFAULT)
    broken = segment[: segment.index(b"moof")] if damage is None else damage

    with pytest.raises(InputLost):
        join_segments([broken], Fraction(16), tmp_path / "joined.mp4")


@pytest.mark.parametrize("given", [0, 2, 4])
def test_a_segment_must_get_the_frames_it_was_promised(given) -> None:
    with pytest.raises(InputLost, match=f"3 frames was given {given}"):
        encode_segment(drawn(given), 3, 0, Fraction(16), DEFAULT)


def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path) -> None:
    frames = [np.pad(frame, ((0, 1), (0, 1), (0, 0)), "edge") for frame in drawn(3)]
    file = join_segments(cut(frames, (3,), Fraction(16)), Fraction(16), tmp_path / "odd.mp4")
    (_, last) = next(read_frames(file.path, {2}))

    assert (file.width, file.height) == (66, 50)
    assert np.abs(last[:, -1].astype(int) - last[:, -2]).mean() < 6


def test_colours_are_tagged_and_kept(tmp_path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[...] = (230, 30, 20)
    file = join_segments(cut([red] * 3, (2, 1), Fraction(16)), Fraction(16), tmp_path / "red.mp4")

    with av.open(file.path) as container:
        context = container.streams.video[0].codec_context
        tags = (context.color_range, context.colorspace, context.color_primaries, context.color_trc)
    (_, frame) = next(read_frames(file.path, {1}))

    assert tags == (1, 1, 1, 1)
    assert np.abs(frame.mean((0, 1)) - (230, 30, 20)).max() < 3


@pytest.fixture(scope="module")
def clip() -> Sequence[Frames]:
    return drawn_clip(97, 192, 160)


def compared(
    folder: Path, clip: Sequence[Frames], fps: Fraction, cuts: Iterable[int], crf: float
) -> tuple[float, float]:
    """Return by how much segments are better than one piece, in dB, and how many times as large."""
    whole = encode_video(clip, fps, VideoQuality(crf), folder / "whole.mp4").path
    joined = join_segments(cut(clip, cuts, fps, VideoQuality(crf)), fps, folder / "joined.mp4").path
    return psnr(joined, clip) - psnr(whole, clip), joined.stat().st_size / whole.stat().st_size


@pytest.mark.parametrize("crf", [22, 25, 33])
@pytest.mark.parametrize("fps", [Fraction(16), Fraction(24000, 1001), Fraction(32)], ids=str)
def test_segments_look_like_one_piece_and_are_not_much_larger(tmp_path, fps, crf) -> None:
    length = math.ceil(MIN_SEGMENT_S * fps)
    clip = drawn_clip(2 * length, 192, 160)

    better, times = compared(tmp_path, clip, fps, (length, length), crf)

    assert abs(better) < 0.5
    assert times < 1.5


@pytest.mark.parametrize("crf", [22, 25, 33])
@pytest.mark.parametrize("cuts", [(13,) * 7 + (6,), (48, 48, 1)], ids=str)
def test_shorter_segments_still_look_like_one_piece(tmp_path, clip, cuts, crf) -> None:
    better, _ = compared(tmp_path, clip, Fraction(16), cuts, crf)

    assert abs(better) < 0.5


def test_a_plan_that_upscales_stores_segments_behind_its_last_stage_only(make_spec) -> None:
    plan = Plan(interpolate=InterpolateOptions(), upscale=UpscaleOptions())

    assert makes_segments(make_spec(plan=plan), StageName.UPSCALE)
    assert not makes_segments(make_spec(plan=plan), StageName.INTERPOLATE)
    assert not makes_segments(make_spec(plan=Plan(interpolate=InterpolateOptions())), StageName.INTERPOLATE)
    assert not makes_segments(make_spec(plan=plan, kind=JobKind.IMAGE), StageName.UPSCALE)


@pytest.fixture(scope="module")
def stored() -> bytes:
    return sealed(encode_segment(drawn(3), 3, 0, Fraction(16), DEFAULT))


def test_a_stored_segment_is_the_same_video(stored, tmp_path) -> None:
    plain = encode_segment(drawn(3), 3, 0, Fraction(16), DEFAULT)
    join_segments([stored, stored], Fraction(16), tmp_path / "stored.mp4")
    join_segments([plain, plain], Fraction(16), tmp_path / "plain.mp4")

    check(stored)
    assert (tmp_path / "stored.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()
    assert stored[4:8] == b"ftyp"


def test_a_segment_of_before_there_were_checksums_is_let_in() -> None:
    check(encode_segment(drawn(3), 3, 0, Fraction(16), DEFAULT))


def test_one_changed_bit_anywhere_in_a_stored_segment_is_a_lost_input(stored) -> None:
    name = stored.find(b"uuid") + 4
    for place in range(len(stored)):
        damaged = bytearray(stored)
        damaged[place] ^= 1 << place % 8
        if name <= place < name + 16:
            continue  # without its name there is no checksum, and nothing else is damaged
        with pytest.raises(InputLost, match="checksum"):
            check(bytes(damaged))


@pytest.mark.parametrize("cut", [1, 100, 1000])
def test_a_stored_segment_that_was_cut_short_is_a_lost_input(stored, cut) -> None:
    with pytest.raises(InputLost, match="checksum"):
        check(stored[:-cut])
