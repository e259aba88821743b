from __future__ import annotations

import httpx
import pytest

from vitascope_platform.links import result_links
from vitascope_platform.s3_settings import S3Settings

KEY = "studio/video_1/tok/0.mp4"


def settings_for(store, server, **changes) -> S3Settings:
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    return S3Settings(endpoint=server.endpoint, results_bucket=store.location.bucket, **keys, **changes)


async def test_a_signed_link_gives_the_file_and_its_parts(s3, s3_store) -> None:
    await s3_store.put(KEY, b"0123456789")
    link = result_links(settings_for(s3_store, s3, results_delivery="presigned")).link(KEY, "video/mp4", "my.mp4")
    async with httpx.AsyncClient() as client:
        whole = await client.get(link)
        part = await client.get(link, headers={"range": "bytes=2-4"})
        other = await client.get(link.replace("0.mp4", "1.mp4"))
        bare = await client.get(link.partition("?")[0])

    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, b"0123456789", "video/mp4")
    assert whole.headers["content-disposition"] == 'inline; filename="my.mp4"'
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert (other.status_code, bare.status_code) == (403, 403)
    assert s3.secret_key not in link


async def test_signed_links_are_for_the_endpoint_that_clients_reach(s3, s3_store) -> None:
    reached = {"results_delivery": "presigned", "results_public_endpoint": "https://media.test", "presign_ttl_s": 60}
    link = result_links(settings_for(s3_store, s3, **reached)).link(KEY, "video/mp4", "my.mp4")

    assert link.startswith(f"https://media.test/{s3_store.location.bucket}/{KEY}?")
    assert "X-Amz-Expires=60&" in link


@pytest.mark.parametrize("url", ["https://cdn.test/renders", "https://cdn.test/renders/"])
def test_a_public_link_is_the_url_and_the_key(url) -> None:
    links = result_links(S3Settings(results_delivery="public", results_public_url=url))

    assert links.link("a b/0.mp4", "video/mp4", "my.mp4") == "https://cdn.test/renders/a%20b/0.mp4"


def test_the_gateway_needs_no_link() -> None:
    assert result_links(S3Settings()).link(KEY, "video/mp4", "my.mp4") is None
