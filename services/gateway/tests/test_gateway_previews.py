"""What is shown of a job before it is finished: events of an image request, previews of a video."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from vitascope_core.errors import StoreUnavailable
from vitascope_core.job import EndState, JobEnd, SourceRecord
from vitascope_core.keys import preview_key
from vitascope_core.plan import StageName
from vitascope_core.task import Queue
from vitascope_gateway import waiting

PATH = "/v1/images/generations"
STREAM = {"prompt": "a cat", "stream": True}


@pytest.fixture
async def shown(stacks, image_card, video_card):
    cards = [replace(card, honours=(*card.honours, "previews")) for card in (image_card, video_card)]
    async with stacks(cards=tuple(cards)) as stack:
        yield stack


async def show(stack, job_id: str, previews: int, attempt: int = 1) -> None:
    """Do what the denoiser does: store the newest preview, then say so."""
    found = await stack.jobs.source(job_id)
    await stack.frames.put(preview_key(job_id, attempt, previews - 1), f"preview {previews - 1}".encode())
    record = SourceRecord(attempt, "w", step=previews, steps=4, beat=previews, previews=previews)
    await stack.jobs.swap_source(job_id, record, found.revision if found else None)


async def heard(stack, job_id: str, previews: int) -> None:
    """Wait until the gateway knows of the previews."""

    def knows() -> bool:
        source = stack.board.job(job_id).source
        return source is not None and source.previews == previews

    await stack.settled(knows)


@asynccontextmanager
async def denoising(stack, pool: str, previews: int = 0, end: JobEnd | None = None):
    """Show each preview once the one before it has been fetched, then end the job."""
    fetched, get = [], stack.frames.get

    async def noted(key: str) -> bytes:
        data = await get(key)
        fetched.append(key)
        return data

    stack.frames.get = noted

    async def work() -> None:
        (delivery,) = await stack.bus.fetch(Queue(StageName.DENOISE, pool), 1, 60)
        job_id = delivery.task.job_id
        for count in range(1, previews + 1):
            await show(stack, job_id, count)
            await stack.settled(lambda: preview_key(job_id, 1, count - 1) in fetched)  # noqa: B023
        if end is None:
            await stack.complete(job_id, b"PNG")
        else:
            await stack.jobs.create_end(job_id, end)
        await delivery.ack()

    worker = asyncio.create_task(work())
    try:
        yield
    finally:
        await asyncio.gather(worker)


def events(answer) -> list[tuple[str, dict]]:
    found = []
    for block in answer.text.strip().split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_a_streamed_image_is_one_event_with_everything_about_it(shown) -> None:
    async with denoising(shown, "stills"):
        answer = await shown.client.post(PATH, json={**STREAM, "seed": 4, "quality": "low"})
    [(name, data)] = events(answer)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert name == data["type"] == "image_generation.completed"
    assert base64.b64decode(data["b64_json"]) == b"PNG"
    assert (data["size"], data["quality"], data["output_format"]) == ("64x64", "low", "png")
    assert (data["background"], data["seed"], data["usage"]["input_tokens"]) == ("opaque", 4, 0)


async def test_previews_come_before_the_image_in_their_order(shown) -> None:
    async with denoising(shown, "stills", previews=2):
        answer = await shown.client.post(PATH, json={**STREAM, "partial_images": 2})
    *partial, (last, _) = events(answer)

    assert [(name, data["partial_image_index"]) for name, data in partial] == [
        ("image_generation.partial_image", 0),
        ("image_generation.partial_image", 1),
    ]
    assert [base64.b64decode(data["b64_json"]) for _, data in partial] == [b"preview 0", b"preview 1"]
    assert set(partial[0][1]) > {"created_at", "size", "quality", "background", "output_format", "type"}
    assert last == "image_generation.completed"


async def test_a_job_that_fails_ends_the_events_with_an_error(shown) -> None:
    failed = JobEnd(EndState.FAILED, "t", 1, "worker_crashed", "it crashed")
    async with denoising(shown, "stills", end=failed):
        answer = await shown.client.post(PATH, json=STREAM)
    [(name, data)] = events(answer)

    assert (answer.status_code, name, data["error"]["code"]) == (200, "error", "worker_crashed")


async def test_an_error_before_the_first_event_is_an_ordinary_one(shown) -> None:
    answer = await shown.client.post(PATH, json={**STREAM, "n": 2})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


async def test_a_client_that_waits_too_long_is_told_by_an_event_and_its_job_is_cancelled(stacks) -> None:
    async with stacks(sync_timeout_s=0.05) as stack:
        answer = await stack.client.post(PATH, json=STREAM)
        [(name, data)] = events(answer)
        entries = await stack.bucket.entries("")
        end = await stack.jobs.end(entries[0].key.partition(".")[0])

    assert (name, "not finished within" in data["error"]["message"]) == ("error", True)
    assert end is not None
    assert end.state is EndState.CANCELLED


async def test_a_store_that_is_away_costs_previews_and_not_the_image(shown) -> None:
    async def away(key: str) -> bytes:
        fetched.append(key)
        raise StoreUnavailable("away")

    fetched: list[str] = []
    async with denoising(shown, "stills", previews=1):
        get, shown.frames.get = shown.frames.get, away
        asking = asyncio.create_task(shown.client.post(PATH, json={**STREAM, "partial_images": 1}))
        await shown.settled(lambda: fetched)
        await shown.frames.put(fetched[0], b"x")
        shown.frames.get = get
        await shown.frames.get(fetched[0])  # what the worker waits for
        answer = await asking

    assert [name for name, _ in events(answer)] == ["image_generation.completed"]


async def test_silence_is_broken_by_comments_that_clients_ignore(shown, monkeypatch) -> None:
    monkeypatch.setattr(waiting, "QUIET_S", 0.001)
    task = asyncio.create_task(shown.client.post(PATH, json=STREAM))
    for _ in range(50):
        await asyncio.sleep(0.001)
    async with denoising(shown, "stills"):
        answer = await task

    assert ": waiting\n\n" in answer.text
    assert [name for name, _ in events(answer)] == ["image_generation.completed"]


# --- videos ----------------------------------------------------------------------------------------------------------


async def video(stack, **fields) -> str:
    return (await stack.client.post("/v1/videos", json={"prompt": "a cat", **fields})).json()["id"]


def preview(stack, video_id: str):
    return stack.client.get(f"/v1/videos/{video_id}/content?variant=preview")


async def test_the_newest_preview_of_a_running_video_can_be_had(shown) -> None:
    job = await video(shown, previews=3)
    for count in (1, 2):
        await show(shown, job, count)
        await heard(shown, job, count)
    answer = await preview(shown, job)

    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"preview 1", "image/webp")


@pytest.mark.parametrize(
    ("previews", "ended", "says"),
    [(0, False, "did not ask"), (2, False, "no preview yet"), (2, True, "is finished")],
)
async def test_a_preview_that_is_not_there_says_why(shown, previews, ended, says) -> None:
    job = await video(shown, previews=previews)
    if ended:
        await shown.complete(job)
        await shown.settled(lambda: shown.board.job(job).end)
    answer = await preview(shown, job)

    assert (answer.status_code, says in answer.json()["error"]["message"]) == (404, True)


async def test_previews_are_part_of_the_spec(shown) -> None:
    spec = await shown.jobs.spec(await video(shown, previews=3))

    assert spec.denoise.previews == 3
