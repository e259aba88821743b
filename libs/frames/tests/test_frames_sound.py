"""Sound on its way from a file that somebody sent into the finished one: untouched where possible, and in time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_clips import clip, frame, sound_packets

from vitascope_core.errors import InputLost, MediaTooLarge
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.media_file import MediaLimits, open_media
from vitascope_frames.segments import encode_segment, join_segments
from vitascope_frames.sound import take_sound
from vitascope_frames.video_file import encode_video

pytestmark = pytest.mark.timeout(60)
LIMITS = MediaLimits()
QUALITY = VideoQuality(30, "ultrafast")
QUARTER = Fraction(1, 4)


def taken(path: Path, folder: Path) -> Path:
    target = folder / "sound.mp4"
    with open_media(path, LIMITS) as media:
        assert take_sound(path, target, media.first, LIMITS)
    return target


def encoded(folder: Path, sound: Path, frames: int = 96) -> Path:
    return encode_video((frame(n) for n in range(frames)), Fraction(48), QUALITY, folder / "out.mp4", sound).path


def joined(folder: Path, sound: Path, frames: int = 96) -> Path:
    half = frames // 2
    parts = [
        encode_segment((frame(n) for n in range(at, at + half)), half, at, Fraction(48), QUALITY) for at in (0, half)
    ]
    return join_segments(parts, Fraction(48), folder / "out.mp4", sound).path


@pytest.mark.parametrize("written", [encoded, joined])
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.mp4", {"sound": "aac"}),
        ("late.mp4", {"sound": "aac", "sound_from": QUARTER}),
        ("late.mkv", {"sound": "aac", "sound_from": QUARTER}),
        ("a.webm", {"sound": "libopus", "codec": "libvpx-vp9"}),
        ("a.mkv", {"sound": "flac"}),
        ("b.mkv", {"sound": "ac3"}),
    ],
)
def test_packets_are_copied_bit_for_bit_and_keep_their_time(tmp_path: Path, name: str, made: dict, written) -> None:
    source = clip(tmp_path / name, 48, **made)
    before = sound_packets(source)
    after = sound_packets(written(tmp_path, taken(source, tmp_path)))

    assert [data for _, data in after] == [data for _, data in before]
    # A file's clock has a tick for each frame and a bit more: 1/12288 of a second here.
    assert max(abs(a - b) for (a, _), (b, _) in zip(after, before, strict=True)) < Fraction(1, 10_000)


def heard(path: Path) -> tuple[np.ndarray, float]:
    """Return the first channel's samples, and when the first is heard."""
    with av.open(path) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([f.to_ndarray()[0] for f in frames]), float(frames[0].pts * frames[0].time_base)


def onset(path: Path) -> float:
    samples, begins = heard(path)
    return begins + int(np.argmax(np.abs(samples) > 0.1)) / 48000


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "pcm_s16le"), ("a.mkv", "mp2")])
def test_what_an_mp4_cannot_hold_is_encoded_anew_and_begins_when_it_did(tmp_path: Path, name: str, codec: str) -> None:
    source = clip(tmp_path / name, 48, sound=codec, sound_from=QUARTER)
    path = encoded(tmp_path, taken(source, tmp_path))
    with av.open(path) as container:
        assert container.streams.audio[0].codec_context.name == "aac"

    assert onset(path) == pytest.approx(0.25, abs=0.015)
    assert len(heard(path)[0]) / 48000 == pytest.approx(2.0, abs=0.06)


def test_a_hole_in_the_sound_stays_one(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mkv", 48, sound="mp2", sound_pause=Fraction(1))
    samples, begins = heard(encoded(tmp_path, taken(source, tmp_path)))
    loud = np.flatnonzero(np.abs(samples) > 0.1) / 48000 + begins

    assert loud[-1] == pytest.approx(3.0, abs=0.05)
    assert not ((loud > 1.1) & (loud < 1.9)).any()


def test_time_counts_from_the_first_picture(tmp_path: Path) -> None:
    late = clip(
        tmp_path / "a.mkv", 12, times=[2 + Fraction(n, 24) for n in range(12)], sound="aac", sound_from=Fraction(2)
    )
    after = sound_packets(encoded(tmp_path, taken(late, tmp_path), 12))

    assert abs(after[1][0]) < Fraction(1, 100)


def test_a_silent_file_has_none(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 4)

    assert take_sound(source, tmp_path / "sound.mp4", Fraction(0), LIMITS) is False
    assert not (tmp_path / "sound.mp4").exists()


def test_sound_may_be_longer_or_shorter_than_the_pictures(tmp_path: Path) -> None:
    sound = taken(clip(tmp_path / "a.mp4", 48, sound="aac"), tmp_path)
    packets = len(sound_packets(sound))
    for frames in (2, 480):
        path = encoded(tmp_path, sound, frames)
        with av.open(path) as container:
            assert len(list(container.decode(video=0))) == frames
        assert len(sound_packets(path)) == packets


def test_sound_that_never_ends_is_refused(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 48, sound="aac")

    with pytest.raises(MediaTooLarge, match=r"sound is longer than 0\.5"):
        take_sound(source, tmp_path / "sound.mp4", Fraction(0), MediaLimits(max_duration_s=0.5))


@pytest.mark.parametrize("content", [b"", b"no sound", b"\0" * 100])
def test_stored_sound_that_is_damaged_is_a_lost_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sound.mp4").write_bytes(content)

    with pytest.raises(InputLost, match="stored sound is damaged"):
        encoded(tmp_path, tmp_path / "sound.mp4", 2)
