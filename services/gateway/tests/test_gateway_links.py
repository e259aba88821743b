"""Files that clients download elsewhere."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest
from pydantic import SecretStr

from vitascope_platform.links import GatewayLinks, PresignedLinks, PublicLinks
from vitascope_platform.s3_settings import S3Location

CDN = "https://cdn.test/renders"


async def finished(stack, **fields) -> str:
    made = await stack.client.post("/v1/videos", json={"prompt": "a cat", **fields})
    video = made.json()["id"]
    await stack.complete(video)
    await stack.settled(lambda: (view := stack.board.job(video)) and view.end)
    return video


@pytest.mark.parametrize(
    ("variant", "name"), [(None, "video-0"), ("1", "video-1"), ("thumbnail", "thumbnail-0"), ("video", "video-0")]
)
async def test_content_sends_clients_to_the_link(stacks, variant, name) -> None:
    async with stacks(links=PublicLinks(CDN)) as stack:
        video = await finished(stack, n=2)
        url = f"/v1/videos/{video}/content"
        query = {} if variant is None else {"variant": variant}
        answer = await stack.client.get(url, params=query, headers={"range": "bytes=1-2"})
        token = stack.board.job(video).end.token

    assert (answer.status_code, answer.headers["location"]) == (302, f"{CDN}/{video}/{token}/{name}")
    assert (answer.headers["cache-control"], answer.content) == ("no-store", b"")


async def test_head_is_answered_without_the_link(stacks) -> None:
    async with stacks(links=PublicLinks(CDN)) as stack:
        answer = await stack.client.head(f"/v1/videos/{await finished(stack)}/content")

    assert (answer.status_code, answer.headers["content-length"]) == (200, "10")


async def test_a_finished_video_tells_its_links(stacks) -> None:
    async with stacks(links=PublicLinks(CDN)) as stack:
        waiting = (await stack.client.post("/v1/videos", json={"prompt": "a dog"})).json()
        video = await finished(stack, n=2)
        token = stack.board.job(video).end.token
        shown = (await stack.client.get(f"/v1/videos/{video}")).json()
        listed = (await stack.client.get("/v1/videos")).json()["data"]

    urls = [f"{CDN}/{video}/{token}/video-{output}" for output in range(2)]
    assert (shown["url"], shown["urls"]) == (urls[0], urls)
    assert shown in listed
    assert "url" not in waiting


@pytest.mark.parametrize("links", [None, GatewayLinks()])
async def test_without_links_the_gateway_streams(stacks, links) -> None:
    async with stacks(links=links) as stack:
        video = await finished(stack)
        shown = (await stack.client.get(f"/v1/videos/{video}")).json()
        content = await stack.client.get(f"/v1/videos/{video}/content")

    assert (content.status_code, content.content) == (200, b"0123456789")
    assert "url" not in shown


async def test_an_image_url_is_the_link(stacks) -> None:
    async with stacks(links=PublicLinks(CDN)) as stack:
        working = asyncio.create_task(stack.work())
        body = {"prompt": "a cat", "model": "stills", "response_format": "url"}
        answer = (await stack.client.post("/v1/images/generations", json=body)).json()
        working.cancel()
        token = stack.board.job(answer["id"]).end.token
        content = await stack.client.get(f"/v1/images/{answer['id']}/content")

    assert answer["data"][0]["url"] == content.headers["location"] == f"{CDN}/{answer['id']}/{token}/image-0"


async def test_links_are_only_for_the_owner_of_a_finished_job(stacks) -> None:
    async with stacks(links=PublicLinks(CDN)) as stack:
        waiting = (await stack.client.post("/v1/videos", json={"prompt": "a dog"})).json()["id"]
        answers = [await stack.client.get(f"/v1/videos/{video}/content") for video in (waiting, "video_0")]

    assert [answer.status_code for answer in answers] == [404, 404]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_openais_client_downloads_through_a_signed_link(stacks, s3, s3_store) -> None:
    bucket = s3_store.location.bucket
    keys = {"access_key": s3.access_key, "secret_key": SecretStr(s3.secret_key)}
    links = PresignedLinks(S3Location("results", s3.endpoint, bucket, **keys), ttl_s=60)
    async with stacks(links=links) as stack:
        video = await finished(stack)
        for info in await stack.results.list(""):
            await s3_store.put(info.key, b"from S3 itself")
        http = openai.DefaultAsyncHttpxClient(mounts={"http://gateway.test": httpx2.ASGITransport(stack.app)})
        async with openai.AsyncOpenAI(base_url="http://gateway.test/v1", api_key="k", http_client=http) as client:
            content = await client.videos.download_content(video)
            name = content.response.headers["content-disposition"]

    assert (content.content, name) == (b"from S3 itself", f'inline; filename="{video}.mp4"')
