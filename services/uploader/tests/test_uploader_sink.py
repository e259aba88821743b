from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vitascope_core.errors import InputLost, Stopped
from vitascope_core.job import JobKind
from vitascope_core.plan import InterpolateOptions, Plan, UpscaleOptions
from vitascope_frames import testcard
from vitascope_frames.chunk import Chunk, Segment
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.pictures import decode_picture
from vitascope_frames.segments import encode_segment
from vitascope_frames.testcard import Testcard
from vitascope_frames.video_file import read_frames
from vitascope_uploader.sink import FileSink

pytestmark = pytest.mark.timeout(30)


def made(spec, control) -> Iterator[Chunk]:
    return Testcard().chunks(spec, control)


def segmented(spec, control) -> Iterator[Segment]:
    quality = VideoQuality.of(spec.output.compression)
    for c in made(spec, control):
        data = encode_segment(c.frames, len(c.frames), c.start, c.fps, quality)
        yield Segment(data, c.output, c.index, c.start, len(c.frames), c.last, c.fps)


def numbers(artifact) -> list[int]:
    wanted = range(artifact.record.frames)
    return [testcard.read_number(frame) for _, frame in read_frames(artifact.path, wanted)]


@pytest.mark.parametrize("parts", [made, segmented])
def test_a_video_job_becomes_a_video_and_two_previews_per_output(make_spec, control, tmp_path, parts) -> None:
    spec = make_spec(cuts=(4, 3), seeds=(1, 2))

    artifacts = FileSink().write(spec, parts(spec, control), tmp_path, control)

    assert [(a.name, a.record.output, a.record.variant, a.record.content_type) for a in artifacts] == [
        ("0.mp4", 0, "video", "video/mp4"),
        ("0-thumbnail.webp", 0, "thumbnail", "image/webp"),
        ("0-spritesheet.jpg", 0, "spritesheet", "image/jpeg"),
        ("1.mp4", 1, "video", "video/mp4"),
        ("1-thumbnail.webp", 1, "thumbnail", "image/webp"),
        ("1-spritesheet.jpg", 1, "spritesheet", "image/jpeg"),
    ]
    assert all(a.path == tmp_path / a.name and a.record.size == a.path.stat().st_size for a in artifacts)


@pytest.mark.parametrize("parts", [made, segmented])
def test_every_frame_is_in_the_file_once_and_in_order(make_spec, control, tmp_path, parts) -> None:
    spec = make_spec(cuts=(4, 3, 6), seeds=(1, 2))

    artifacts = FileSink().write(spec, parts(spec, control), tmp_path, control)

    assert [numbers(a) for a in artifacts if a.record.variant == "video"] == [list(range(13))] * 2


@pytest.mark.parametrize("parts", [made, segmented])
def test_records_tell_the_size_of_the_file_itself(make_spec, control, tmp_path, parts) -> None:
    spec = make_spec(cuts=(4, 3), size=(65, 49), fps=Fraction(24000, 1001))

    video, thumbnail, sheet = (a.record for a in FileSink().write(spec, parts(spec, control), tmp_path, control))

    assert (video.width, video.height, video.frames, video.fps) == (66, 50, 7, Fraction(24000, 1001))
    even = (66, 50) if parts is segmented else (65, 49)
    assert (thumbnail.width, thumbnail.height, thumbnail.frames, thumbnail.fps) == (*even, 1, 0)
    assert (sheet.width, sheet.height) == (5 * even[0], 2 * even[1])
    assert (sheet.frames, sheet.columns) == (7, 5)


@pytest.mark.parametrize("parts", [made, segmented])
def test_previews_show_the_first_and_evenly_spaced_frames(make_spec, control, tmp_path, parts) -> None:
    spec = make_spec(cuts=(20, 20, 10))

    _, thumbnail, sheet = FileSink().write(spec, parts(spec, control), tmp_path, control)
    pixels = decode_picture(sheet.path.read_bytes())
    tiles = [pixels[row * 48 :][:48, column * 64 :][:, :64] for row in range(5) for column in range(5)]

    assert testcard.read_number(decode_picture(thumbnail.path.read_bytes())) == 0
    assert [testcard.read_number(tile) for tile in tiles] == list(range(0, 50, 2))


def test_the_file_does_not_depend_on_the_chunks(make_spec, control, tmp_path) -> None:
    files = set()
    for cuts in ((12,), (5, 7), (1,) * 12):
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        spec = make_spec(cuts=cuts)
        files.add(FileSink().write(spec, made(spec, control), folder, control)[0].path.read_bytes())

    assert len(files) == 1


def test_the_video_has_the_rate_after_interpolation(make_spec, control, tmp_path) -> None:
    spec = make_spec(cuts=(2, 1), plan=Plan(interpolate=InterpolateOptions(exp=1)))
    doubled = replace(make_spec(cuts=(5,)), fps=Fraction(32))

    video = FileSink().write(spec, made(doubled, control), tmp_path, control)[0]

    assert (video.record.frames, video.record.fps) == (5, 32)
    with av.open(video.path) as container:
        assert container.streams.video[0].average_rate == 32


def test_a_video_of_one_frame_is_a_video(make_spec, control, tmp_path) -> None:
    spec = make_spec(cuts=(1,), plan=Plan(upscale=UpscaleOptions()))

    video, _, sheet = FileSink().write(spec, segmented(spec, control), tmp_path, control)

    assert numbers(video) == [0]
    assert (sheet.record.frames, sheet.record.columns) == (1, 1)


@pytest.mark.parametrize(("file_format", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_an_image_job_becomes_one_picture_per_output(make_spec, control, tmp_path, file_format, suffix) -> None:
    spec = make_spec(kind=JobKind.IMAGE, cuts=(1,), seeds=(1, 2), file_format=file_format, compression=90)

    artifacts = FileSink().write(spec, made(spec, control), tmp_path, control)

    assert [a.name for a in artifacts] == [f"0.{suffix}", f"1.{suffix}"]
    for artifact, seed in zip(artifacts, (1, 2), strict=True):
        with Image.open(artifact.path) as image:
            assert image.get_format_mimetype() == artifact.record.content_type
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(pixels - testcard.draw(0, 64, 48, seed)).mean() < 6
        assert (artifact.record.variant, artifact.record.width, artifact.record.height) == ("image", 64, 48)
        assert (artifact.record.frames, artifact.record.fps) == (1, 0)


def without(index: int):
    return lambda parts: [part for part in parts if part.index != index]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda parts: [], "output 0 stops after 0 of 7 frames"),
        (without(0), "expected chunk 0-0 at frame 0, got chunk 0-1 at frame 3"),
        (without(1), "expected chunk 0-1 at frame 3, got chunk 0-2 at frame 5"),
        (without(2), "output 0 stops after 5 of 7 frames"),
        (lambda parts: parts[:2] + parts[1:], "expected chunk 0-2 at frame 5, got chunk 0-1 at frame 3"),
        (lambda parts: [replace(parts[0], last=True)], "output 0 ends after 3 of 7 frames"),
        (lambda parts: [replace(parts[0], output=1)], "expected chunk 0-0 at frame 0, got chunk 1-0"),
        (lambda parts: [parts[0], replace(parts[1], start=4)], "expected chunk 0-1 at frame 3, got chunk 0-1 at frame"),
    ],
)
@pytest.mark.parametrize("kind", [made, segmented])
def test_a_hole_in_the_parts_is_a_lost_input(make_spec, control, tmp_path, kind, harm, said) -> None:
    spec = make_spec(cuts=(3, 2, 2))

    with pytest.raises(InputLost, match=said):
        FileSink().write(spec, iter(harm(list(kind(spec, control)))), tmp_path, control)


def test_an_output_that_never_comes_is_a_lost_input(make_spec, control, tmp_path) -> None:
    one, two = make_spec(cuts=(2,)), make_spec(cuts=(2,), seeds=(1, 2))

    with pytest.raises(InputLost, match="output 1 stops after 0 of 2 frames"):
        FileSink().write(two, made(one, control), tmp_path, control)


@pytest.mark.parametrize("order", [(made, segmented), (segmented, made)])
def test_frames_and_segments_do_not_mix(make_spec, control, tmp_path, order) -> None:
    spec = make_spec(cuts=(2, 2))
    first, second = (list(kind(spec, control)) for kind in order)

    with pytest.raises(InputLost, match="mixes"):
        FileSink().write(spec, iter([first[0], second[1]]), tmp_path, control)


def test_every_part_is_ticked_and_a_stop_is_heard(make_spec, control, new_control, tmp_path) -> None:
    spec, quiet = make_spec(cuts=(2, 2, 2)), new_control()

    def stopping() -> Iterator[Chunk]:
        for chunk in made(spec, quiet):
            if chunk.index == 2:
                control.stop()
            yield chunk

    with pytest.raises(Stopped):
        FileSink().write(spec, stopping(), tmp_path, control)
    assert len(control.ticks) == 2


@pytest.mark.parametrize("kind", [made, segmented])
def test_a_part_is_let_go_before_the_next_is_asked_for(make_spec, control, new_control, tmp_path, kind) -> None:
    spec, quiet = make_spec(cuts=(2, 2, 2, 2)), new_control()
    alive: list[int] = []

    def watched() -> Iterator[Chunk | Segment]:
        kept: list[object] = []
        for index in range(4):
            # Three references are this test's own: the list, the loop, the call.
            alive.append(sum(sys.getrefcount(payload) > 3 for payload in kept))
            part = list(kind(spec, quiet))[index]
            kept.append(part.data if isinstance(part, Segment) else part.frames)
            yield part
            del part

    FileSink().write(spec, watched(), tmp_path, control)

    assert alive == [0, 0, 0, 0]


def test_memory_is_flat_in_the_length_of_the_video(make_spec, control, tmp_path) -> None:
    peaks = []
    for chunks in (12, 48):
        spec = make_spec(cuts=(4,) * chunks, size=(128, 128))
        folder = tmp_path / str(chunks)
        folder.mkdir()
        tracemalloc.start()
        FileSink().write(spec, made(spec, control), folder, control)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < peaks[0] * 1.3
