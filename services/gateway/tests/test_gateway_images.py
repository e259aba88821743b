"""Image requests wait for their job; what happens when it does not come."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager

import pytest

from vitascope_core.errors import BrokerUnavailable, StoreUnavailable
from vitascope_core.job import EndState, JobEnd

PROMPT = {"prompt": "a cat"}
PATH = "/v1/images/generations"


@asynccontextmanager
async def working(stack, end: JobEnd | None = None):
    worker = asyncio.create_task(stack.work(end))
    try:
        yield
    finally:
        worker.cancel()


async def only_job(stack) -> str:
    while not (entries := await stack.bucket.entries("")):  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    return entries[0].key.partition(".")[0]


@pytest.mark.parametrize(
    ("response_format", "has"), [(None, (True, True)), ("url", (True, False)), ("b64_json", (False, True))]
)
async def test_images_come_as_url_or_data_or_both(stack, response_format, has) -> None:
    async with working(stack):
        answer = await stack.client.post(PATH, json={**PROMPT, "n": 2, "response_format": response_format, "seed": 4})
    body = answer.json()

    assert answer.status_code == 200
    assert [(bool(i["url"]), bool(i["b64_json"])) for i in body["data"]] == [has] * 2
    assert all(set(image) == {"url", "b64_json", "revised_prompt"} for image in body["data"])
    assert (body["size"], body["output_format"], body["background"], body["seed"]) == ("64x64", "png", "opaque", [4, 5])
    assert type(body["created"]) is int
    usage = body["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (0, 0, 0)
    assert usage["input_tokens_details"] == {"text_tokens": 0, "image_tokens": 0}
    if has[1]:
        assert base64.b64decode(body["data"][1]["b64_json"]) == b"PNG"
    if has[0]:
        assert body["data"][1]["url"] == f"http://gateway.test/v1/images/{body['id']}/content?variant=1"
        fetched = await stack.client.get(body["data"][1]["url"])
        assert (fetched.content, fetched.headers["content-type"]) == (b"PNG", "image/png")


async def test_urls_begin_with_the_public_base_url(stacks) -> None:
    async with stacks(public_base_url="https://media.example.org/api/") as stack, working(stack):
        body = (await stack.client.post(PATH, json=PROMPT)).json()

    assert body["data"][0]["url"] == f"https://media.example.org/api/v1/images/{body['id']}/content"


async def test_a_form_makes_images_too(stack) -> None:
    async with working(stack):
        answer = await stack.client.post(PATH, data={**PROMPT, "n": "2", "output_format": "webp", "user": ""})

    assert (len(answer.json()["data"]), answer.json()["output_format"]) == (2, "webp")


async def test_a_failed_image_is_an_error_that_is_not_repeated(stack) -> None:
    failed = JobEnd(EndState.FAILED, "t", 1, code="out_of_memory", message="no memory")
    async with working(stack, failed):
        answer = await stack.client.post(PATH, json=PROMPT)

    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert (error["type"], error["code"], error["message"]) == ("server_error", "out_of_memory", "no memory")


async def test_an_image_that_takes_too_long_is_cancelled_and_not_repeated(stacks) -> None:
    async with stacks(sync_timeout_s=0.05) as stack:
        answer = await stack.client.post(PATH, json=PROMPT)
        job = await only_job(stack)

        assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
        assert answer.json()["error"]["code"] == "timeout"
        assert (await stack.jobs.end(job)).state is EndState.CANCELLED
        assert await stack.bus.count(job) == 0


async def test_an_image_that_is_finished_at_the_last_moment_is_delivered(stacks, monkeypatch) -> None:
    async with stacks(sync_timeout_s=0.05) as stack:
        cancel = stack.submission.cancel

        async def late(job_id):
            await stack.complete(job_id, b"PNG")
            return await cancel(job_id)

        monkeypatch.setattr(stack.submission, "cancel", late)
        answer = await stack.client.post(PATH, json=PROMPT)

        assert answer.status_code == 200
        assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == b"PNG"


async def test_an_outage_while_cancelling_does_not_make_the_client_repeat(stacks, monkeypatch) -> None:
    async with stacks(sync_timeout_s=0.05) as stack:

        async def away(job_id):
            raise BrokerUnavailable("timed out")

        monkeypatch.setattr(stack.submission, "cancel", away)
        answer = await stack.client.post(PATH, json=PROMPT)

        assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")


async def test_a_client_that_leaves_cancels_its_job(stack) -> None:
    leave, sent = asyncio.Event(), []
    messages = iter([{"type": "http.request", "body": b'{"prompt": "a cat"}', "more_body": False}])

    async def receive():
        for message in messages:
            return message
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "root_path": "", "server": ("gateway.test", 80),
        "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1),
    }  # fmt: skip
    request = asyncio.create_task(stack.app(scope, receive, send))
    job = await only_job(stack)
    await stack.settled(lambda: stack.board.job(job))
    assert await stack.jobs.end(job) is None
    leave.set()
    await request

    assert (await stack.jobs.end(job)).state is EndState.CANCELLED
    assert await stack.bus.count(job) == 0
    assert sent[0]["status"] == 499


async def test_images_do_not_appear_among_videos(stack) -> None:
    async with working(stack):
        await stack.client.post(PATH, json=PROMPT)

    assert (await stack.client.get("/v1/videos")).json()["data"] == []


async def test_image_content_has_numbered_variants_only(stack) -> None:
    async with working(stack):
        image = (await stack.client.post(PATH, json=PROMPT)).json()["id"]

    async def status(variant: str) -> int:
        return (await stack.client.get(f"/v1/images/{image}/content", params={"variant": variant})).status_code

    assert [await status(v) for v in ("0", "image", "1", "thumbnail")] == [200, 200, 404, 400]
    ranged = await stack.client.get(f"/v1/images/{image}/content", headers={"range": "bytes=1-1"})
    assert (ranged.status_code, ranged.content) == (206, b"N")


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["whole", "streamed"])
async def test_a_finished_image_that_cannot_be_read_is_not_made_again(stack, fields) -> None:
    async def away(key: str) -> bytes:
        raise StoreUnavailable("away")

    stack.results.get = away
    async with working(stack):
        answer = await stack.client.post(PATH, json={**PROMPT, **fields})
    job = await only_job(stack)

    assert "result_unavailable" in answer.text
    assert f"http://gateway.test/v1/images/{job}/content" in answer.text
    if not fields:
        assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
