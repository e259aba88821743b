"""A stored file becomes stored chunks, in a process of its own that may crash, hang or run out of memory."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_clips import clip, frame, sound_packets
from PIL import Image

from vitascope_core.errors import (
    DamagedMedia,
    EngineCrashed,
    InputLost,
    InvalidRequest,
    MediaTooLarge,
    Stopped,
    UnsupportedMedia,
    VitascopeError,
)
from vitascope_core.handling import Work
from vitascope_core.job import (
    NO_DENOISING,
    ChunkRecord,
    IngestSpec,
    JobKind,
    JobSpec,
    Media,
    OutputSpec,
)
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_core.task import Task, source_task
from vitascope_frames.codec import loads
from vitascope_frames.media_file import MediaLimits
from vitascope_frames.testcard import read_number
from vitascope_frames.video_file import read_frames
from vitascope_uploader.ingest_handler import IngestHandler, IngestOptions
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler

pytestmark = pytest.mark.timeout(60)

KEY = "jobs/video_1/inputs/0"
LOSSLESS = {"codec": "ffv1", "pix_fmt": "bgr0"}


class Log:
    """An attempt's record, as far as files go."""

    def __init__(self) -> None:
        self.media: Media | None = None

    async def opened(self, media: Media) -> bool:
        self.media = media
        return True


def spec_of(chunk_frames: int = 0, **plan: object) -> JobSpec:
    return JobSpec(
        id="video_1",
        kind=JobKind.VIDEO,
        pool="",
        model="",
        created_ms=0,
        deadline_ms=10**15,
        denoise=NO_DENOISING,
        cuts=(),
        output=OutputSpec("mp4", 50),
        fps=Fraction(0),
        plan=Plan(StageName.INGEST, **plan),
        ingest=IngestSpec(KEY, "clip.mp4", chunk_frames=chunk_frames),
    )


@pytest.fixture
def work(control) -> Work:
    spec = spec_of(5)
    return Work(source_task(spec), spec, 2, "token", control, Log())


async def read(store, work: Work, path: Path | None, **options: object) -> list[ChunkRecord]:
    if path is not None:
        store.objects[KEY] = path.read_bytes()
    return [record async for record in IngestHandler(store, IngestOptions(**options)).chunks(work)]


async def test_a_file_becomes_chunks_that_hold_every_frame(store, work: Work, tmp_path: Path) -> None:
    records = await read(store, work, clip(tmp_path / "a.avi", 12, size=(63, 47), **LOSSLESS))
    chunks = [loads(store.objects[record.key]) for record in records]
    frames = np.concatenate([chunk.frames for chunk in chunks])

    assert [(r.index, r.start, r.frames, r.last) for r in records] == [
        (0, 0, 5, False),
        (1, 5, 5, False),
        (2, 10, 2, True),
    ]
    assert {(r.attempt, r.stage, r.fps) for r in records} == {(2, StageName.INGEST, 24)}
    assert np.array_equal(frames, np.stack([frame(number, 63, 47) for number in range(12)]))
    assert chunks[0].lead is None
    assert [read_number(chunk.lead) for chunk in chunks[1:]] == [4, 9]


async def test_what_the_file_is_is_recorded_before_its_first_chunk(store, work: Work, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 12, sound="aac", fps=Fraction(24000, 1001))
    store.objects[KEY] = path.read_bytes()
    async with aclosing(IngestHandler(store, IngestOptions()).chunks(work)) as records:
        await anext(records)
        media = work.log.media
    (tmp_path / "sound.mp4").write_bytes(store.objects["jobs/video_1/2/audio-0"])

    assert media == Media(64, 48, Fraction(24000, 1001), 12, "jobs/video_1/2/audio-0")
    assert [data for _, data in sound_packets(tmp_path / "sound.mp4")] == [data for _, data in sound_packets(path)]


@pytest.mark.parametrize(
    ("plan", "fps", "expected"),
    [
        ({}, 24, [18, 18, 4]),  # of 921,600 bytes each, in 16 MiB
        ({"interpolate": InterpolateOptions()}, 24, [9, 9, 9, 9, 4]),  # which become twice as many
        ({"upscale": UpscaleOptions(4)}, 24, [40]),  # 2 s, and no segment of 4 frames behind that
        ({"upscale": UpscaleOptions(4)}, 9, [18, 22]),
    ],
    ids=["by bytes", "by bytes later", "by time", "by time again"],
)
async def test_chunks_are_as_long_as_those_of_other_sources(
    store, work: Work, tmp_path: Path, plan: dict, fps: int, expected: list[int]
) -> None:
    work = replace(work, spec=spec_of(**plan))
    records = await read(store, work, clip(tmp_path / "a.mp4", 40, size=(640, 480), fps=fps))

    assert [record.frames for record in records] == expected


@pytest.mark.parametrize(
    ("content", "options", "kind", "said"),
    [
        (b"", {}, UnsupportedMedia, "empty"),
        (b"a letter" * 99, {}, UnsupportedMedia, "no video"),
        (None, {"limits": MediaLimits(max_pixels=99)}, MediaTooLarge, "64x48"),
        (None, {"limits": MediaLimits(max_duration_s=0.1)}, MediaTooLarge, "seconds"),
        (None, {"memory_bytes": 32 << 20}, MediaTooLarge, "memory"),
    ],
    ids=["empty", "no media", "pixels", "duration", "memory"],
)
async def test_what_cannot_be_used_is_told_as_what_it_is(
    store, work: Work, tmp_path: Path, content, options: dict, kind: type[VitascopeError], said: str
) -> None:
    path = clip(tmp_path / "a.mp4", 12)
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(kind, match=said):
        await read(store, work, path, **options)


async def test_a_video_that_would_become_too_large_is_refused(store, work: Work, tmp_path: Path) -> None:
    work = replace(work, spec=spec_of(upscale=UpscaleOptions(300)))

    with pytest.raises(MediaTooLarge, match="19200 pixels on a side"):
        await read(store, work, clip(tmp_path / "a.mp4", 2))


@pytest.mark.parametrize(
    ("kind", "path", "field"), [(JobKind.VIDEO, "a.mp4", "video"), (JobKind.IMAGE, "a.png", "image")]
)
async def test_frames_that_the_upscaler_has_no_memory_for_are_refused_before_it_sees_them(
    store, work: Work, tmp_path: Path, kind: JobKind, path: str, field: str
) -> None:
    def asked(most: int) -> Work:
        ingest = IngestSpec(KEY, path, field=field, max_pixels=most)
        return replace(work, spec=replace(spec_of(upscale=UpscaleOptions(2)), kind=kind, ingest=ingest))

    source = clip(tmp_path / path, 2) if kind is JobKind.VIDEO else picture(tmp_path / path, frame(0))
    assert await read(store, asked(64 * 48), source)
    store.objects.clear()

    with pytest.raises(InvalidRequest, match="at most 3071 pixels in all, which the upscaler has memory for") as told:
        await read(store, asked(64 * 48 - 1), source)
    assert told.value.field == field
    assert list(store.objects) == [KEY]


def still(work: Work, scale: float = 0, file_format: str = "png") -> Work:
    """The work of reading a picture."""
    spec = spec_of(**({"upscale": UpscaleOptions(scale)} if scale else {}))
    return replace(work, spec=replace(spec, kind=JobKind.IMAGE, output=OutputSpec(file_format, 75)))


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


async def test_a_picture_is_a_single_frame_with_its_transparency(store, work: Work, tmp_path: Path) -> None:
    drawn = np.dstack([frame(3), np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)])
    [record] = await read(store, still(work), picture(tmp_path / "a.png", drawn))
    chunk = loads(store.objects[record.key])

    assert (record.index, record.start, record.frames, record.last) == (0, 0, 1, True)
    assert np.array_equal(chunk.frames, drawn[None])
    assert work.log.media == Media(64, 48, Fraction(0), 1)


@pytest.mark.parametrize(
    ("name", "content", "limits", "kind", "said"),
    [
        ("a.png", None, MediaLimits(max_pixels=99), MediaTooLarge, "64x48, more than 99 pixels"),
        ("a.gif", None, MediaLimits(), UnsupportedMedia, "no picture"),
        ("a.png", b"a letter", MediaLimits(), UnsupportedMedia, "no picture"),
        ("a.png", b"", MediaLimits(), UnsupportedMedia, "empty"),
        ("a.jpg", b"\xff\xd8\xff\xe0", MediaLimits(), DamagedMedia, "damaged"),
    ],
)
async def test_a_picture_that_cannot_be_used_is_told_as_what_it_is(
    store, work: Work, tmp_path: Path, name: str, content, limits, kind, said: str
) -> None:
    path = picture(tmp_path / name, frame(0))
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(kind, match=said):
        await read(store, still(work), path, limits=limits)


@pytest.mark.parametrize(
    ("file_format", "size", "scale", "said"),
    [
        ("webp", (2100, 1), 8, "picture would have 16800 pixels on a side, more than 16383"),
        ("jpeg", (8200, 1), 8, "picture would have 65600 pixels on a side, more than 65535"),
        ("png", (3000, 2800), 8, "picture would have 537600000 pixels, more than 536870912"),
    ],
)
async def test_a_picture_that_would_become_too_large_is_refused(
    store, work: Work, tmp_path: Path, file_format: str, size: tuple[int, int], scale: float, said: str
) -> None:
    source = picture(tmp_path / "a.png", np.zeros((*size[::-1], 3), np.uint8))

    with pytest.raises(MediaTooLarge, match=said):
        await read(store, still(work, scale, file_format), source)


@pytest.mark.parametrize("channels", [3, 4])
async def test_the_finished_picture_is_the_one_that_was_read(
    store, work: Work, tmp_path: Path, new_control, channels: int
) -> None:
    drawn = np.dstack([frame(3), np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)])[..., :channels]
    reading = still(work)
    found = await read(store, reading, picture(tmp_path / "a.png", drawn.copy()))
    results = type(store)()
    task = Task("video_1", StageName.UPLOAD, attempt=2)
    upload = Work(task, reading.spec, 2, "token", new_control(), media=work.log.media)
    [file] = await FileUploadHandler(FileSink(), store, results).upload(upload, records_of(found))

    assert (file.variant, file.width, file.height, file.content_type) == ("image", 64, 48, "image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(results.objects[file.key]))), drawn)


async def test_a_file_that_is_gone_is_a_lost_input(store, work: Work) -> None:
    with pytest.raises(InputLost, match="inputs/0 is gone"):
        await read(store, work, None)


async def test_what_came_before_the_damage_was_on_its_way(store, work: Work, tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.avi", 12, **LOSSLESS).read_bytes()
    places = [at for at in range(len(whole)) if whole[at : at + 4] == b"00dc"]
    at = places[8]
    path = tmp_path / "b.avi"
    path.write_bytes(whole[: at + 8] + b"\xff" * 40 + whole[at + 48 :])

    with pytest.raises(DamagedMedia, match=r"after \d pictures the file cannot be decoded"):
        await read(store, work, path)
    assert [key for key in store.objects if "/ingest/" in key] == ["jobs/video_1/2/ingest/0-0"]


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the reading process run some code when it decodes, as a decoder gone wrong would."""

    def run(code: str) -> None:
        folder = tmp_path / "harm"
        folder.mkdir()
        lines = ["import os, signal, sys, time", "from vitascope_frames import media_file", "def harm(self):"]
        lines += [f"    {line}" for line in code.splitlines()]
        lines += ["media_file.MediaFile.pictures = harm"]
        (folder / "sitecustomize.py").write_text("\n".join(lines))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    return run


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", DamagedMedia, r"decoder crash \(SIGSEGV\)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", EngineCrashed, "ended with -9"),
        ("os._exit(3)", EngineCrashed, "ended with 3"),
        ("raise ZeroDivisionError('strange')", DamagedMedia, "cannot be read: strange"),
        ("os.write(1, b'nonsense' * 9); time.sleep(600)", DamagedMedia, "nonsense"),
    ],
)
async def test_a_decoder_gone_wrong_harms_only_its_own_process(
    store, work: Work, tmp_path: Path, child, code: str, kind: type[VitascopeError], said: str
) -> None:
    child(code)

    with pytest.raises(kind, match=said):
        await read(store, work, clip(tmp_path / "a.mp4", 2))


async def test_a_decoder_that_hangs_is_ended(store, work: Work, tmp_path: Path, child) -> None:
    child("time.sleep(600)")

    with pytest.raises(DamagedMedia, match=r"decoder of the file hung: nothing came of it for 0\.5 seconds"):
        await read(store, work, clip(tmp_path / "a.mp4", 2), silence_s=0.5)


async def test_the_reading_process_knows_no_secrets(store, work: Work, tmp_path: Path, child, monkeypatch) -> None:
    monkeypatch.setenv("VITASCOPE_S3_SECRET_KEY", "hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    child("raise ValueError(sorted(name for name in os.environ if 'hush' in os.environ[name]))")

    with pytest.raises(DamagedMedia, match=r"\[\]"):
        await read(store, work, clip(tmp_path / "a.mp4", 2))


async def test_a_stop_ends_the_reading_process(store, work: Work, tmp_path: Path, child) -> None:
    marker = tmp_path / "pid"
    child(f"open({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\nyield")
    reading = asyncio.create_task(read(store, work, clip(tmp_path / "a.mp4", 2)))
    while not (marker.exists() and marker.read_text()):  # noqa: ASYNC110 - another process tells
        await asyncio.sleep(0.01)
    work.control.stop()

    with pytest.raises(Stopped):
        await reading
    assert not Path(f"/proc/{marker.read_text()}").exists()


async def test_reading_waits_for_whoever_takes_the_chunks(store, work: Work, tmp_path: Path) -> None:
    store.objects[KEY] = clip(tmp_path / "a.mp4", 400, size=(256, 256)).read_bytes()
    spec = replace(work.spec, ingest=replace(work.spec.ingest, chunk_frames=10))
    handler = IngestHandler(store, IngestOptions(memory_bytes=512 << 20))
    async with aclosing(handler.chunks(replace(work, spec=spec))) as records:
        await anext(records)
        ticks = len(work.control.ticks)
        assert ticks < 8  # the file, the first chunks, and what fits into the pipe
    assert [key for key in store.objects if "/ingest/" in key] == ["jobs/video_1/2/ingest/0-0"]


async def records_of(found: list[ChunkRecord]):
    for record in found:
        yield record


async def test_the_finished_file_has_the_frames_the_rate_and_the_sound(
    store, work: Work, tmp_path: Path, new_control
) -> None:
    source = clip(tmp_path / "a.mp4", 30, sound="aac", fps=30)
    found = await read(store, work, source)
    results = type(store)()
    media = work.log.media
    upload = Work(Task("video_1", StageName.UPLOAD, attempt=2), work.spec, 2, "token", new_control(), media=media)
    files = await FileUploadHandler(FileSink(), store, results).upload(upload, records_of(found))
    path = tmp_path / "finished.mp4"
    path.write_bytes(results.objects[files[0].key])

    assert (files[0].frames, files[0].fps, files[0].width, files[0].height) == (30, 30, 64, 48)
    assert [read_number(picture) for _, picture in read_frames(path, range(30))] == list(range(30))
    assert sound_packets(path) == sound_packets(source)
    assert [(f.variant, f.frames) for f in files[1:]] == [("thumbnail", 1), ("spritesheet", 25)]


async def test_sound_that_is_gone_is_a_lost_input(store, work: Work, tmp_path: Path, new_control) -> None:
    found = await read(store, work, clip(tmp_path / "a.mp4", 2))
    media = replace(work.log.media, audio="jobs/video_1/2/audio-0")
    upload = Work(Task("video_1", StageName.UPLOAD, attempt=2), work.spec, 2, "token", new_control(), media=media)

    with pytest.raises(InputLost, match="audio-0 is gone"):
        await FileUploadHandler(FileSink(), store, type(store)()).upload(upload, records_of(found))
