"""OpenAI's own client, unmodified."""

from __future__ import annotations

import asyncio
import base64

import httpx
import openai
import pytest

PNG = b"PNG"


@pytest.fixture
async def client(stack):
    http = httpx.AsyncClient(transport=httpx.ASGITransport(stack.app), base_url="http://gateway.test")
    async with openai.AsyncOpenAI(base_url="http://gateway.test/v1", api_key="k", http_client=http) as client:
        yield client


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_video_is_created_polled_listed_downloaded_and_deleted(stack, client) -> None:
    extra = {"num_frames": 13, "seed": 7, "guidance_scale": 2.5, "enable_upscaling": False, "num_inference_steps": 3}
    made = await client.videos.create(model="sora-2", prompt="a cat", size="64x64", seconds="4", extra_body=extra)
    spec = await stack.jobs.spec(made.id)
    assert (spec.denoise.num_frames, spec.denoise.seeds, spec.denoise.guidance_scale) == (13, (7,), 2.5)
    assert (made.status, made.model, made.size, made.seconds) == ("queued", "sora-2", "64x64", "1")

    polling = asyncio.create_task(client.videos.poll(made.id, poll_interval_ms=10))
    await asyncio.sleep(0.05)
    await stack.complete(made.id, b"mp4 bytes")
    done = await polling
    assert (done.status, done.progress) == ("completed", 100)

    more = [(await client.videos.create(prompt="a dog")).id for _ in range(4)]
    await stack.settled(lambda: stack.board.job(more[-1]))
    listed = [video.id async for video in await client.videos.list(limit=2)]
    assert listed == [*more[::-1], made.id]
    assert [v.id async for v in await client.videos.list(limit=2, order="asc", after=more[1])] == more[2:]

    assert (await client.videos.download_content(made.id)).read() == b"mp4 bytes"
    thumbnail = await client.videos.download_content(made.id, variant="thumbnail")
    assert (thumbnail.read(), thumbnail.response.headers["content-type"]) == (b"thumbnail", "image/webp")

    # The obvious way to clean up: the cursor of each next page is a video that was just deleted.
    async for video in await client.videos.list(limit=2):
        gone = await client.videos.delete(video.id)
        assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    assert (await client.videos.list()).data == []
    with pytest.raises(openai.NotFoundError):
        await client.videos.retrieve(made.id)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_refusal_reaches_the_client_with_its_fields(stack, client) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.videos.create(prompt="a cat", extra_body={"num_frames": 10})

    error = refusal.value
    assert (error.param, error.code, error.type) == ("num_frames", "invalid_value", "invalid_request_error")
    assert "nearest: 9 or 13" in error.message
    assert error.request_id.startswith("req_")
    assert await stack.is_untouched()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_reference_is_refused_in_each_of_its_spellings(stack, client) -> None:
    with pytest.raises(openai.BadRequestError, match="input_reference is not supported"):
        await client.videos.create(prompt="a cat", input_reference=("a.png", b"\x89PNG"))
    with pytest.raises(openai.BadRequestError, match="input_reference is not supported"):
        await client.videos.create(prompt="a cat", extra_body={"input_reference": {"image_url": "data:,"}})


async def test_images_are_made(stack, client) -> None:
    worker = asyncio.create_task(stack.work())
    made = await client.images.generate(prompt="a cat", n=2, size="64x64", model=None, extra_body={"seed": 3})
    data = await client.images.generate(prompt="a cat", response_format="b64_json", model="gpt-image-1")
    worker.cancel()

    assert [image.url.startswith("http://gateway.test/v1/images/img_") for image in made.data] == [True, True]
    assert base64.b64decode(data.data[0].b64_json) == PNG
    assert data.data[0].url is None
    assert made.usage.total_tokens == 0
    assert made.created > 0


async def test_models_are_listed_and_retrieved(client) -> None:
    assert [model.id async for model in client.models.list()] == ["org/clips", "stills"]
    assert (await client.models.retrieve("org/clips")).id == "org/clips"
    with pytest.raises(openai.NotFoundError) as refusal:
        await client.models.retrieve("nope")
    assert refusal.value.code == "model_not_found"


async def test_failures_are_not_repeated_by_the_client(stacks) -> None:
    async with stacks(sync_timeout_s=0.02) as stack:
        calls = []

        async def count(request):
            calls.append(request.url.path)

        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(stack.app), base_url="http://gateway.test", event_hooks={"request": [count]}
        )
        async with openai.AsyncOpenAI(base_url="http://gateway.test/v1", api_key="k", http_client=http) as client:
            with pytest.raises(openai.InternalServerError):
                await client.images.generate(prompt="a cat")

        assert len(calls) == 1
