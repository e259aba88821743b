from __future__ import annotations

import asyncio
import errno
import json
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from vitascope_core.errors import DiskFull, InputLost, Stopped, StoreUnavailable
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord, EndState, FileRecord, JobEnd, JobKind, JobSpec, Usage
from vitascope_core.plan import Plan, StageName, UpscaleOptions
from vitascope_core.task import Task, source_task
from vitascope_frames import testcard
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.testcard import Testcard
from vitascope_frames.transform_handler import TransformHandler
from vitascope_frames.video_file import read_frames
from vitascope_platform.records import from_json
from vitascope_uploader import room
from vitascope_uploader.manifest import manifest
from vitascope_uploader.sink import FileSink
from vitascope_uploader.upload_handler import FileUploadHandler

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    """Send temporary folders to a place of the test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def results(store):
    return type(store)()


async def stored(spec, store, control) -> list[ChunkRecord]:
    work = Work(source_task(spec), spec, attempt=1, token="s", control=control)
    return [record async for record in SourceHandler(Testcard(), store).chunks(work)]


async def following(records) -> AsyncIterator[ChunkRecord]:
    for record in records:
        await asyncio.sleep(0)
        yield record


def upload_work(spec, control, token="tok") -> Work:
    return Work(Task(spec.id, StageName.UPLOAD, attempt=1), spec, attempt=1, token=token, control=control)


async def finished(handler, work, parts) -> tuple[list[FileRecord], JobEnd]:
    """Do what the worker does: the files, then the manifest with the end that is to be created."""
    files = await handler.upload(work, parts)
    usage = Usage({"denoise": 1.5, "upload": 0.25}, 0.5, attempts=2, frames=5, bytes=sum(f.size for f in files))
    end = JobEnd(EndState.COMPLETED, work.token, 1_700_000_000_123, files=tuple(files), usage=usage)
    await handler.finish(work, end)
    return files, end


async def test_files_lie_under_the_deliverys_token(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(3, 2))
    handler = FileUploadHandler(FileSink(), store, results, prefix="studio/")

    parts = following(await stored(spec, store, control))
    files, _ = await finished(handler, upload_work(spec, control), parts)

    assert [file.key for file in files] == [
        "studio/video_1/tok/0.mp4",
        "studio/video_1/tok/0-thumbnail.webp",
        "studio/video_1/tok/0-spritesheet.jpg",
    ]
    assert set(results.objects) == {*(file.key for file in files), "studio/video_1/tok/manifest.json"}
    assert all(file.size == len(results.objects[file.key]) for file in files)


async def test_the_stored_video_shows_every_frame(make_spec, store, results, control, tmp_path) -> None:
    spec = make_spec(cuts=(3, 2, 4))
    handler = FileUploadHandler(FileSink(), store, results)

    files = await handler.upload(upload_work(spec, control), following(await stored(spec, store, control)))
    path = tmp_path / "0.mp4"
    path.write_bytes(results.objects[files[0].key])

    assert [testcard.read_number(frame) for _, frame in read_frames(path, range(9))] == list(range(9))


async def stored_segments(spec, store, control) -> list[ChunkRecord]:
    class Same:
        def apply(self, chunk, options):
            return chunk.with_frames(chunk.frames)

    segments = []
    for record in await stored(spec, store, control):
        task = Task(spec.id, StageName.UPSCALE, attempt=1, index=record.index)
        work = Work(task, spec, attempt=1, token="u", control=control)
        segments += [r async for r in TransformHandler(Same(), store).chunks(work)]
    return segments


async def test_segments_are_joined(make_spec, store, results, control, tmp_path) -> None:
    spec = make_spec(cuts=(3, 2), plan=Plan(upscale=UpscaleOptions()))
    segments = await stored_segments(spec, store, control)

    files = await FileUploadHandler(FileSink(), store, results).upload(upload_work(spec, control), following(segments))
    path = tmp_path / "0.mp4"
    path.write_bytes(results.objects[files[0].key])

    assert [testcard.read_number(frame) for _, frame in read_frames(path, range(5))] == list(range(5))


async def test_a_segment_that_differs_from_what_was_stored_is_a_lost_input(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(3, 2), plan=Plan(upscale=UpscaleOptions()))
    segments = await stored_segments(spec, store, control)
    data = bytearray(store.objects[segments[1].key])
    data[-50] ^= 1
    store.objects[segments[1].key] = bytes(data)

    with pytest.raises(InputLost, match="checksum"):
        await FileUploadHandler(FileSink(), store, results).upload(upload_work(spec, control), following(segments))
    assert results.objects == {}


async def test_the_manifest_is_stored_last_and_holds_both_records(make_spec, store, results, control) -> None:
    plan = Plan(upscale=UpscaleOptions())
    changes = {"cuts": (1,), "seeds": (4, 2**63 - 1), "file_format": "png"}
    spec = replace(make_spec(kind=JobKind.IMAGE, **changes), owner="anna")
    parts = following(await stored(spec, store, control))
    handler = FileUploadHandler(FileSink(), store, results)
    _, end = await finished(handler, upload_work(spec, control), parts)
    later = replace(spec, plan=plan, fps=Fraction(24000, 1001))
    manifests = [json.loads(results.objects["video_1/tok/manifest.json"]), json.loads(manifest(later, end))]

    assert list(results.objects)[-1] == "video_1/tok/manifest.json"
    for found, job in zip(manifests, (spec, later), strict=True):
        assert found["schema_version"] == 2
        # The platform reads it although the uploader knows no messages.
        assert from_json(JobSpec, json.dumps(found["spec"]).encode()) == job
        assert from_json(JobEnd, json.dumps(found["end"]).encode()) == end


async def test_the_next_part_is_fetched_while_the_current_one_is_written(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(1, 1, 1))
    records = await stored(spec, store, control)
    second_fetched = threading.Event()
    get = store.get

    async def noted(key: str) -> bytes:
        data = await get(key)
        if key == records[1].key:
            second_fetched.set()
        return data

    store.get = noted

    class Sink(FileSink):
        def write(self, spec, parts, folder, control, sound=None):
            def waiting():
                for part in parts:
                    assert second_fetched.wait(10)
                    yield part

            return super().write(spec, waiting(), folder, control)

    await FileUploadHandler(Sink(), store, results).upload(upload_work(spec, control), following(records))


async def test_writing_begins_before_the_last_chunk_is_recorded(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(1, 1))
    records = await stored(spec, store, control)
    writing = threading.Event()

    async def slow() -> AsyncIterator[ChunkRecord]:
        yield records[0]
        assert await asyncio.to_thread(writing.wait, 10)
        yield records[1]

    class Sink(FileSink):
        def write(self, spec, parts, folder, control, sound=None):
            def noted():
                for part in parts:
                    writing.set()
                    yield part

            return super().write(spec, noted(), folder, control)

    await FileUploadHandler(Sink(), store, results).upload(upload_work(spec, control), slow())


async def test_an_object_that_is_gone_is_a_lost_input_and_leaves_nothing(
    make_spec, store, results, control, scratch
) -> None:
    spec = make_spec(cuts=(3, 2))
    records = await stored(spec, store, control)
    del store.objects[records[1].key]

    with pytest.raises(InputLost, match="denoise/0-1 is gone"):
        await FileUploadHandler(FileSink(), store, results).upload(upload_work(spec, control), following(records))

    assert results.objects == {}
    assert list(scratch.iterdir()) == []


async def test_records_that_stop_early_are_a_lost_input(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(3, 2))
    records = await stored(spec, store, control)

    with pytest.raises(InputLost, match="stops after 3 of 5"):
        await FileUploadHandler(FileSink(), store, results).upload(upload_work(spec, control), following(records[:1]))


async def test_what_follows_the_records_may_fail_as_itself(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(3, 2))
    records = await stored(spec, store, control)

    async def broken() -> AsyncIterator[ChunkRecord]:
        yield records[0]
        raise Stopped("superseded")

    with pytest.raises(Stopped, match="superseded"):
        await FileUploadHandler(FileSink(), store, results).upload(upload_work(spec, control), broken())


@pytest.mark.parametrize("fails", ["0.mp4", "0-spritesheet.jpg", "manifest.json"])
async def test_half_a_result_is_removed(make_spec, store, results, control, scratch, fails) -> None:
    spec = make_spec(cuts=(3,))
    put, put_file = results.put, results.put_file

    def failing(call):
        async def attempt(key, data):
            if key.endswith(f"tok/{fails}"):
                raise StoreUnavailable(key)
            await call(key, data)

        return attempt

    results.put, results.put_file = failing(put), failing(put_file)
    await results.put("video_1/another/0.mp4", b"another delivery's")

    with pytest.raises(StoreUnavailable):
        await finished(
            FileUploadHandler(FileSink(), store, results),
            upload_work(spec, control),
            following(await stored(spec, store, control)),
        )
    assert set(results.objects) == {"video_1/another/0.mp4"}
    assert list(scratch.iterdir()) == []


async def test_a_disk_without_room_is_an_outage_and_no_bug(make_spec, store, results, control, scratch) -> None:
    class Sink(FileSink):
        def write(self, spec, parts, folder, control, sound=None):
            (folder / "0.mp4").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    records = await stored(make_spec(cuts=(3,)), store, control)
    work = upload_work(make_spec(cuts=(3,)), control)

    with pytest.raises(DiskFull):
        await FileUploadHandler(Sink(), store, results).upload(work, following(records))
    assert (results.objects, list(scratch.iterdir())) == ({}, [])


async def test_no_folder_with_room_is_an_outage_too(make_spec, store, results, control, monkeypatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    records = await stored(make_spec(cuts=(3,)), store, control)
    monkeypatch.setattr(room, "gettempdir", none)

    with pytest.raises(DiskFull):
        await FileUploadHandler(FileSink(), store, results).upload(
            upload_work(make_spec(cuts=(3,)), control), following(records)
        )


async def test_other_errors_of_the_operating_system_stay_what_they_are(make_spec, store, results, control) -> None:
    class Sink(FileSink):
        def write(self, spec, parts, folder, control, sound=None):
            raise PermissionError(errno.EACCES, "no")

    records = await stored(make_spec(cuts=(3,)), store, control)
    work = upload_work(make_spec(cuts=(3,)), control)

    with pytest.raises(PermissionError):
        await FileUploadHandler(Sink(), store, results).upload(work, following(records))


async def test_a_stop_between_files_removes_what_was_stored(make_spec, store, results, control) -> None:
    spec = make_spec(cuts=(3,))
    put_file, put = results.put_file, []

    async def stopping(key: str, path: Path) -> None:
        await put_file(key, path)
        put.append(key)
        control.stop()

    results.put_file = stopping

    with pytest.raises(Stopped):
        await FileUploadHandler(FileSink(), store, results).upload(
            upload_work(spec, control), following(await stored(spec, store, control))
        )
    assert put == ["video_1/tok/0.mp4"]
    assert results.objects == {}


async def test_cancelling_ends_the_thread_and_removes_the_folder(make_spec, store, results, control, scratch) -> None:
    spec = make_spec(cuts=(1, 1, 1))
    records = await stored(spec, store, control)
    waiting = asyncio.Event()

    async def stuck() -> AsyncIterator[ChunkRecord]:
        yield records[0]
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(
        FileUploadHandler(FileSink(), store, results).upload(upload_work(spec, control), stuck())
    )
    await waiting.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("drain")]
    for thread in threads:
        thread.join(30)  # its work is over, and it needs a moment to end
    assert not [thread for thread in threads if thread.is_alive()]
    assert list(scratch.iterdir()) == []


async def test_discard_removes_one_deliverys_files_only(store, results) -> None:
    results.objects = {"p/video_1/mine/0.mp4": b"", "p/video_1/mine2/0.mp4": b"", "p/video_12/mine/0.mp4": b""}

    await FileUploadHandler(FileSink(), store, results, prefix="p/").discard("video_1", "mine")

    assert set(results.objects) == {"p/video_1/mine2/0.mp4", "p/video_12/mine/0.mp4"}
