"""Promise 10: cancel works within one denoising step, or before the next chunk."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest
from serving import Server


@pytest.fixture
def slow(state: Path):
    # One step is far longer than a test may take: only a cancel that acts within it lets the next job through.
    with Server(state, "--model-path=testcard", "--testcard-step-s=300") as server:
        yield server


@pytest.fixture
def slow_chunks(state: Path):
    with Server(state, "--model-path=testcard", "--testcard-chunk-s=0.3") as server:
        yield server


def delete(server: Server, video: str) -> None:
    answer = httpx.delete(f"{server.url}/v1/videos/{video}", timeout=30)
    assert answer.json() == {"id": video, "object": "video.deleted", "deleted": True}


def gone(server: Server, video: str) -> bool:
    listed = [item["id"] for item in server.get("/v1/videos").json()["data"]]
    return server.get(f"/v1/videos/{video}").status_code == 404 and video not in listed


def until_empty(server: Server) -> None:
    """Wait until the server keeps nothing of any job."""
    deadline = time.monotonic() + 60
    while server.files("frames") or server.files("results"):
        assert time.monotonic() < deadline, server.files("frames") + server.files("results")
        time.sleep(0.02)


def test_a_job_that_denoises_is_deleted_within_its_step(slow: Server) -> None:
    first, second = slow.make(), slow.make()
    slow.until(first, "in_progress")
    delete(slow, first)
    delete(slow, second)

    assert gone(slow, first)
    assert gone(slow, second)
    until_empty(slow)
    assert slow.terminate() == 0


def test_a_queued_job_is_deleted_without_running(slow: Server) -> None:
    running = [slow.make() for _ in range(3)]
    waiting = slow.make()
    delete(slow, waiting)

    assert gone(slow, waiting)
    for video in running:
        delete(slow, video)
    until_empty(slow)


def test_a_job_that_decodes_is_deleted_and_the_next_one_completes(slow_chunks: Server) -> None:
    video = slow_chunks.make(num_frames=20, chunk_frames=1)
    slow_chunks.until_progress(video, 82)
    delete(slow_chunks, video)
    following = slow_chunks.make(num_frames=1)

    assert gone(slow_chunks, video)
    assert slow_chunks.until(following)["status"] == "completed"
    delete(slow_chunks, following)
    until_empty(slow_chunks)


def test_a_finished_job_is_deleted_with_its_files(testcard: Server) -> None:
    video = testcard.make()
    testcard.until(video)
    delete(testcard, video)

    assert gone(testcard, video)
    assert not [name for name in testcard.files("results") if name.startswith(video)]


def test_deleting_twice_is_not_found(testcard: Server) -> None:
    video = testcard.make()
    testcard.until(video)
    delete(testcard, video)

    assert httpx.delete(f"{testcard.url}/v1/videos/{video}").status_code == 404


def test_deletes_that_race_the_end_leave_nothing(testcard: Server) -> None:
    videos = [testcard.make(num_frames=3, chunk_frames=1) for _ in range(12)]
    threads = [threading.Thread(target=delete, args=(testcard, video)) for video in videos]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 60
    while any(name.split("/")[0] in videos for name in testcard.files("results")) or testcard.files("frames"):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    assert all(gone(testcard, video) for video in videos)


def test_a_client_that_hangs_up_cancels_its_image(slow: Server) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{slow.url}/v1/images/generations", json={"prompt": "x"}, timeout=httpx.Timeout(10, read=1))

    # The device is free again: what comes next gets to run.
    slow.until(slow.make(), "in_progress")
    assert slow.terminate() == 0
