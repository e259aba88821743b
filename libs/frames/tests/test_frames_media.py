"""Files that others made, read as frames at a constant rate: kinds that occur, and those that are meant to harm."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_clips import clip, frame

from vitascope_core.errors import DamagedMedia, MediaTooLarge, UnsupportedMedia
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.media_file import MediaLimits, open_media
from vitascope_frames.testcard import read_number
from vitascope_frames.video_file import encode_video, read_frames

pytestmark = pytest.mark.timeout(60)
LIMITS = MediaLimits()


def pictures(path: Path, limits: MediaLimits = LIMITS) -> list[np.ndarray]:
    with open_media(path, limits) as media:
        return list(media.pictures())


def numbers(path: Path) -> list[int]:
    return [read_number(picture) for picture in pictures(path)]


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("h264.mp4", {}),
        ("quicktime.mov", {"sound": "pcm_s16le"}),
        ("matroska.mkv", {}),
        ("vp9.webm", {"codec": "libvpx-vp9"}),
        ("ten_bits.mp4", {"pix_fmt": "yuv420p10le"}),
        ("grey.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("two_videos.mkv", {"second": True}),
        ("animation.gif", {"codec": "gif", "pix_fmt": "rgb8", "fps": 10}),
        ("animation.apng", {"codec": "apng", "pix_fmt": "rgb24", "fps": 10}),
        ("film.avi", {"codec": "ffv1", "pix_fmt": "bgr0", "fps": Fraction(24000, 1001)}),
        ("film.mkv", {"fps": Fraction(24000, 1001)}),
        ("fragmented.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_picture_of_a_file_comes_once_and_in_order(tmp_path: Path, name: str, made: dict) -> None:
    path = clip(tmp_path / name, 12, **made)
    with open_media(path, LIMITS) as media:
        found = [read_number(picture) for picture in media.pictures()]

    assert found == list(range(12))
    assert (media.width, media.height, media.fps) == (64, 48, made.get("fps", 24))


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.avi", {"codec": "ffv1", "pix_fmt": "bgr0"}),
        ("a.mp4", {"codec": "libx264rgb", "pix_fmt": "rgb24", "lossless": True}),
    ],
)
@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_lossless_pictures_come_byte_for_byte(tmp_path: Path, name: str, made: dict, size: tuple[int, int]) -> None:
    path = clip(tmp_path / name, 3, size=size, **made)

    assert all(np.array_equal(got, frame(number, *size)) for number, got in enumerate(pictures(path)))


def test_colours_are_those_that_were_encoded(tmp_path: Path) -> None:
    got = pictures(clip(tmp_path / "a.mp4", 2))[0].astype(int)

    # 4:2:0 blurs colour at edges; within areas it is right to a level or two.
    assert np.abs(got[30:46, 40:60] - frame(0)[30:46, 40:60]).max() <= 3


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (270, 3), (-90, 3)])
def test_pictures_are_turned_as_players_turn_them(tmp_path: Path, degrees: int, quarters: int) -> None:
    path = clip(tmp_path / "a.mp4", 2, codec="libx264rgb", pix_fmt="rgb24", lossless=True, rotation=degrees)
    with open_media(path, LIMITS) as media:
        first = next(media.pictures())

    assert np.array_equal(first, np.rot90(frame(0), quarters))
    assert first.shape == (media.height, media.width, 3)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_variable_rate_becomes_a_constant_one(tmp_path: Path, ending: str) -> None:
    times = [Fraction(slot, 30) for slot in (0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 15, 16)]
    path = clip(tmp_path / f"a.{ending}", 12, fps=30, times=times)

    # Where the next one is late the newest is shown again.
    assert numbers(path) == [0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 9, 9, 10, 11]


def test_pixels_become_square(tmp_path: Path) -> None:
    wide = clip(tmp_path / "wide.mp4", 2, aspect=Fraction(4, 3))
    tall = clip(tmp_path / "tall.mp4", 2, aspect=Fraction(3, 4))

    assert (pictures(wide)[0].shape, pictures(tall)[0].shape) == ((48, 85, 3), (64, 64, 3))
    assert (numbers(wide), numbers(tall)) == ([0, 1], [0, 1])


def test_a_high_dynamic_range_is_mapped_to_an_ordinary_one(tmp_path: Path) -> None:
    # 203 nits, what white paper has, in PQ: it would look grey if its numbers were taken as they are.
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = 16, 9, 9, 1
        picture = av.VideoFrame(64, 48, "yuv420p10le")
        for place, plane in enumerate(picture.planes):
            np.frombuffer(plane, np.uint16)[:] = 573 if place == 0 else 512
        picture.pts, picture.time_base = 0, Fraction(1, 24)
        for packet in (*stream.encode(picture), *stream.encode(None)):
            container.mux(packet)

    (got,) = pictures(path)

    assert 148 <= int(got.min()) <= int(got.max()) <= 156


def test_what_is_transparent_becomes_black(tmp_path: Path) -> None:
    path = tmp_path / "a.apng"
    with av.open(path, "w") as container:
        stream = container.add_stream("apng", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        for number in range(2):
            rgba = np.dstack([frame(number), np.full((48, 64), 255, np.uint8)])
            rgba[:, :32, 3] = 0
            picture = av.VideoFrame.from_ndarray(rgba, "rgba")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)

    first = pictures(path)[0]

    assert not first[:, :32].any()
    assert np.array_equal(first[:, 32:], frame(0)[:, 32:])


def test_a_single_picture_is_a_video(tmp_path: Path) -> None:
    assert numbers(clip(tmp_path / "a.mp4", 1)) == [0]


def test_interlaced_pictures_lose_their_combs(tmp_path: Path) -> None:
    # Two fields in one picture, one bright and one dark, and the other way round in the next: what moves has combs.
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(6):
            combed = np.zeros((64, 64, 3), np.uint8)
            combed[number % 2 :: 2] = 200
            picture = av.VideoFrame.from_ndarray(combed, "rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)

    found = pictures(path)

    assert len(found) == 6
    combs = [np.abs(np.diff(picture[8:-8, :, 0].astype(int), axis=0)).mean() for picture in found]
    assert max(combs) < 20


def damaged(path: Path, source: bytes) -> Path:
    path.write_bytes(source)
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_damaged(tmp_path: Path, ending: str, share: float) -> None:
    made = {"options": {"movflags": "faststart"}} if ending == "mp4" else {}
    codec = {"codec": "ffv1", "pix_fmt": "bgr0"} if ending == "avi" else {}
    data = clip(tmp_path / f"whole.{ending}", 24, **made, **codec).read_bytes()
    path = damaged(tmp_path / f"cut.{ending}", data[: int(len(data) * share)])

    with pytest.raises(DamagedMedia, match="the file breaks off"):
        pictures(path)


def test_pictures_that_cannot_be_decoded_are_told(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.avi", 6, codec="ffv1", pix_fmt="bgr0").read_bytes()
    place = whole.index(b"01wb") if b"01wb" in whole else whole.index(b"00dc", whole.index(b"movi") + 200)
    size = struct.unpack("<I", whole[place + 4 : place + 8])[0]
    broken = whole[: place + 8] + b"\xff" * size + whole[place + 8 + size :]

    with pytest.raises(DamagedMedia, match=r"after \d pictures the file cannot be decoded"):
        pictures(damaged(tmp_path / "b.avi", broken))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"no video at all, but a letter\n" * 50, "no video that is read here"),
        (b"ffconcat version 1.0\nfile '/etc/hostname'\n", "no video that is read here"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "no video that is read here"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "no video that is read here"),
    ],
    ids=["empty", "text", "ffconcat", "playlist", "picture"],
)
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UnsupportedMedia, match=said):
        pictures(damaged(tmp_path / "clip.mp4", content))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000, layout="stereo")
        piece = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        piece.sample_rate, piece.pts = 48000, 0
        for packet in (*stream.encode(piece), *stream.encode(None)):
            container.mux(packet)

    with pytest.raises(UnsupportedMedia, match="no moving pictures"):
        pictures(path)


def test_a_file_without_a_single_picture_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()

    with pytest.raises(DamagedMedia, match="no picture"):
        pictures(path)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (MediaLimits(max_pixels=64 * 48 - 1), "64x48, more than 3071 pixels"),
        (MediaLimits(max_duration_s=0.4), "longer than 0.4 seconds"),
        (MediaLimits(max_streams=1), "2 streams, more than 1"),
    ],
)
def test_what_is_beyond_the_limits_is_too_large(tmp_path: Path, limits: MediaLimits, said: str) -> None:
    with pytest.raises(MediaTooLarge, match=said):
        pictures(clip(tmp_path / "a.mp4", 12, second=True), limits)


def test_a_pause_in_the_times_does_not_fill_the_world(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 30), Fraction(50_000)]
    # As it comes from a camera: the header does not say how long it is going to be.
    path = clip(tmp_path / "a.mkv", 3, fps=30, times=times, options={"live": "1"})

    with pytest.raises(MediaTooLarge, match="longer than"):
        pictures(path)


def test_huge_dimensions_in_a_header_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.avi", 2, codec="ffv1", pix_fmt="bgr0").read_bytes()
    place = data.index(b"strf") + 12
    huge = data[:place] + struct.pack("<II", 8192, 8192) + data[place + 8 :]

    with pytest.raises(MediaTooLarge, match="8192x8192"):
        pictures(damaged(tmp_path / "b.avi", huge))


def test_frames_of_a_long_file_are_found_by_their_time(tmp_path: Path) -> None:
    fps = Fraction(24000, 1001)
    path = encode_video(
        (frame(number) for number in range(300)), fps, VideoQuality(25, "ultrafast"), tmp_path / "a.mp4"
    ).path
    wanted = {0, 3, 150, 151, 299}

    assert [(n, read_number(picture)) for n, picture in read_frames(path, wanted)] == [(n, n) for n in sorted(wanted)]


def test_frames_far_from_any_key_frame_are_found_as_well(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 400, fps=24)

    assert [(n, read_number(picture)) for n, picture in read_frames(path, {5, 390})] == [(5, 5), (390, 390)]
