from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vitascope_core.errors import DiskFull, InputLost, Stopped
from vitascope_frames import testcard
from vitascope_frames.chunk import Frames
from vitascope_frames.h264 import EncodingFailed, VideoQuality, ticks
from vitascope_frames.video_file import encode_video, read_frames

DEFAULT = VideoQuality.of(50)


def drawn(count: int, size: tuple[int, int] = (64, 48)) -> list[Frames]:
    return [testcard.draw(number, *size, seed=1) for number in range(count)]


def test_the_bytes_do_not_depend_on_the_chunks(tmp_path) -> None:
    video = np.stack(drawn(25, (96, 64)))
    video = video + np.random.default_rng(0).integers(0, 9, video.shape, np.uint8)

    files = set()
    for size in (1, 5, 12, 25):
        chunks = [video[at : at + size].copy() for at in range(0, 25, size)]
        path = tmp_path / f"{size}.mp4"
        encode_video((frame for chunk in chunks for frame in chunk), Fraction(16), DEFAULT, path)
        files.add(path.read_bytes())

    assert len(files) == 1


@pytest.mark.parametrize("fps", [Fraction(25, 2), Fraction(16), Fraction(24000, 1001), Fraction(60000, 1001)], ids=str)
def test_frames_are_counted_and_timed_exactly(tmp_path, fps) -> None:
    file = encode_video(drawn(19), fps, DEFAULT, tmp_path / "video.mp4")

    with av.open(file.path) as container:
        stream = container.streams.video[0]
        shown = [(frame.pts * frame.time_base, frame) for frame in container.decode(stream)]
        duration = stream.duration * stream.time_base

    assert [time for time, _ in shown] == [number / fps for number in range(19)]
    assert duration == 19 / fps
    assert (file.frames, file.width, file.height) == (19, 64, 48)


def test_numbers_can_be_read_from_the_file(tmp_path) -> None:
    file = encode_video(drawn(33), Fraction(16), DEFAULT, tmp_path / "video.mp4")

    assert [(n, testcard.read_number(frame)) for n, frame in read_frames(file.path, (0, 7, 32))] == [
        (0, 0),
        (7, 7),
        (32, 32),
    ]


def test_the_index_comes_before_the_pictures(tmp_path) -> None:
    data = encode_video(drawn(5), Fraction(16), DEFAULT, tmp_path / "video.mp4").path.read_bytes()

    assert data.index(b"moov") < data.index(b"mdat")


def test_a_long_video_can_be_entered_every_four_seconds(tmp_path) -> None:
    file = encode_video(drawn(41, (32, 32)), Fraction(4), DEFAULT, tmp_path / "video.mp4")

    with av.open(file.path) as container:
        keys = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.is_keyframe]

    assert keys[0] == 0
    assert max(later - earlier for earlier, later in zip(keys, [*keys[1:], Fraction(41, 4)], strict=True)) <= 4


def test_transparent_frames_are_composited_on_black(tmp_path) -> None:
    clear = np.full((48, 64, 4), 255, np.uint8)
    clear[:, :32, 3] = 0
    file = encode_video([clear] * 2, Fraction(16), DEFAULT, tmp_path / "video.mp4")
    (_, frame) = next(read_frames(file.path, {0}))

    assert frame[:, :28].max() < 12
    assert frame[:, 36:].min() > 243


@pytest.mark.parametrize(("compression", "crf"), [(100, 1), (90, 5), (75, 12), (55, 22), (50, 25), (35, 33), (10, 45)])
def test_the_quality_table_stands_for_these_rate_factors(compression, crf) -> None:
    assert VideoQuality.of(compression).crf == crf


def test_the_best_quality_still_plays_everywhere(tmp_path) -> None:
    file = encode_video(drawn(3), Fraction(16), VideoQuality.of(100), tmp_path / "video.mp4")

    with av.open(file.path) as container:
        assert container.streams.video[0].codec_context.profile == "High"


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (Fraction(16), (16384, 1024)),
        (Fraction(25, 2), (12800, 1024)),
        (Fraction(24000, 1001), (24000, 1001)),
    ],
)
def test_a_frame_lasts_a_whole_number_of_ticks(fps, expected) -> None:
    assert ticks(fps) == expected


def test_a_frame_of_another_size_is_refused(tmp_path) -> None:
    frames = [*drawn(2), *drawn(1, (64, 64))]

    with pytest.raises(InputLost, match="frame 2 is 64x64"):
        encode_video(frames, Fraction(16), DEFAULT, tmp_path / "video.mp4")


def test_no_frames_make_no_video(tmp_path) -> None:
    with pytest.raises(InputLost, match="no frames"):
        encode_video([], Fraction(16), DEFAULT, tmp_path / "video.mp4")


def test_a_folder_that_is_not_there_is_an_encoding_failure(tmp_path) -> None:
    with pytest.raises(EncodingFailed):
        encode_video(drawn(1), Fraction(16), DEFAULT, tmp_path / "missing" / "video.mp4")


def test_a_full_disk_is_told_apart_from_other_failures() -> None:
    with pytest.raises(DiskFull):
        encode_video(drawn(1), Fraction(16), DEFAULT, Path("/dev/full"))


@pytest.mark.parametrize("before", [0, 3])
def test_what_the_frames_raise_comes_out_unchanged(tmp_path, before) -> None:
    def stopping():
        yield from drawn(before)
        raise Stopped("enough")

    with pytest.raises(Stopped):
        encode_video(stopping(), Fraction(16), DEFAULT, tmp_path / "video.mp4")


def test_reading_past_the_end_is_a_lost_input(tmp_path) -> None:
    file = encode_video(drawn(3), Fraction(16), DEFAULT, tmp_path / "video.mp4")

    with pytest.raises(InputLost, match="ends before frame 3"):
        list(read_frames(file.path, (1, 3)))


def test_a_script_that_calls_itself_a_video_is_not_followed(tmp_path) -> None:
    encode_video(drawn(1), Fraction(16), DEFAULT, tmp_path / "secret.mp4")
    script = Path(tmp_path / "script.mp4")
    script.write_text("ffconcat version 1.0\nfile secret.mp4\n")

    with pytest.raises(InputLost):
        list(read_frames(script, (0,)))
