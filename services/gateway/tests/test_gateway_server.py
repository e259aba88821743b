"""The gateway behind a real server and a real socket."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
import uvicorn

from vitascope_core.job import EndState
from vitascope_gateway.server import bound, serve_http


@asynccontextmanager
async def served(stack):
    server = uvicorn.Server(uvicorn.Config(stack.app, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await stack.settled(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_synchronous_client_makes_videos_and_images(stack) -> None:
    def use(url: str) -> tuple:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k") as client:
            video = client.videos.create(prompt="a cat", seconds="1", extra_body={"seed": 3})
            seen = client.videos.retrieve(video.id)
            image = client.images.generate(prompt="a cat", response_format="url").data[0]
            return video, seen, httpx.get(image.url).content, client.videos.delete(video.id)

    worker = asyncio.create_task(stack.work())
    async with served(stack) as url:
        video, seen, image, gone = await asyncio.to_thread(use, url)
    worker.cancel()

    assert (video.status, seen.id, image, gone.deleted) == ("queued", video.id, b"PNG", True)


async def test_ranges_head_and_errors_survive_the_server(stack) -> None:
    async with served(stack) as url, httpx.AsyncClient(base_url=url) as client:
        video = (await client.post("/v1/videos", json={"prompt": "a cat"})).json()["id"]
        await stack.complete(video)
        await stack.settled(lambda: stack.board.job(video).end)
        path = f"/v1/videos/{video}/content"

        head = await client.head(path)
        part = await client.get(path, headers={"range": "bytes=-4"})
        large = await client.post("/v1/videos", content=b"x" * (stack.settings.max_body_bytes + 1))

        assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
        assert (part.status_code, part.content) == (206, b"6789")
        assert large.status_code == 413


async def test_a_connection_that_closes_cancels_its_image(stack) -> None:
    async with served(stack) as url, httpx.AsyncClient(base_url=url) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/v1/images/generations", json={"prompt": "a cat"}, timeout=0.2)
        (entry,) = [e for e in await stack.bucket.entries("") if e.key.endswith(".spec")]
        job = entry.key.partition(".")[0]

        assert (await stack.board.wait_end(job, 5)).state is EndState.CANCELLED


async def test_a_request_that_outlasts_the_shutdown_is_told_to_come_again(stack) -> None:
    stop, started = asyncio.Event(), asyncio.Event()
    with bound("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve_http(stack.app, listener, stop, started.set, shutdown_s=1))
        await started.wait()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            asking = asyncio.create_task(client.post("/v1/images/generations", json={"prompt": "a cat"}))
            while not await stack.bucket.entries(""):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            stop.set()
            answer = await asking
        await serving
    (entry,) = [e for e in await stack.bucket.entries("") if e.key.endswith(".spec")]
    end = await stack.jobs.end(entry.key.partition(".")[0])

    assert end is not None
    assert end.state is EndState.CANCELLED  # or asking again would make it twice
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_a_large_image_is_delivered_whole(stack) -> None:
    content = bytes(range(256)) * 8192

    async def work() -> None:
        while not (entries := await stack.bucket.entries("")):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        await stack.complete(entries[0].key.partition(".")[0], content)

    async with served(stack) as url, httpx.AsyncClient(base_url=url) as client:
        worker = asyncio.create_task(work())
        answer = await client.post("/v1/images/generations", json={"prompt": "a cat"})
        await worker

    assert base64.b64decode(answer.json()["data"][0]["b64_json"]) == content
