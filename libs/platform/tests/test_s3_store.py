"""What only a store behind a network does."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from s3_fixtures import location

from tools.cluster.s3_server import S3Server
from vitascope_core.errors import InvalidSettings, ObjectMissing, StoreUnavailable
from vitascope_core.ports import ObjectInfo
from vitascope_platform.store_s3 import BucketMissing, S3Store, StoreRefused

WRONG = "not-the-secret"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret_key": SecretStr(WRONG)}, "the secret key does not belong to the access key"),
        ({"access_key": "nobody"}, "the access key is not known there"),
    ],
)
async def test_wrong_credentials_are_wrong_settings(s3, s3_store, caplog, changes, message) -> None:
    caplog.set_level(logging.DEBUG)
    bucket = s3_store.location.bucket
    with closing(S3Store(location(s3, bucket, **changes))) as store:
        with pytest.raises(InvalidSettings, match=message) as refused:
            await store.check()
        with pytest.raises(StoreRefused, match="access is denied"):
            await store.stat("a")

    text = str(refused.value)
    for part in ("cannot write", bucket, s3.endpoint, "VITASCOPE_S3_ACCESS_KEY", "VITASCOPE_S3_SECRET_KEY"):
        assert part in text
    for secret in (WRONG, s3.secret_key):
        assert secret not in text + caplog.text + repr(refused.value.__cause__) + repr(store)


@pytest.mark.parametrize(("name", "variable"), [("frames", "FRAMES_BUCKET"), ("results", "RESULTS_BUCKET")])
async def test_a_missing_bucket_is_named_with_its_remedy(s3, name, variable) -> None:
    with closing(S3Store(location(s3, "nowhere", name=name))) as store:
        with pytest.raises(
            BucketMissing, match=r"bucket nowhere at .* does not exist.*vitascope_platform.bootstrap"
        ) as no:
            await store.check()
        for call in (store.get("a"), store.stat("a"), store.list(""), store.put("a", b""), store.delete_prefix("a/")):
            with pytest.raises(StoreUnavailable, match="does not exist"):
                await call

    assert f"VITASCOPE_S3_{variable}" in str(no.value)


async def test_a_check_leaves_nothing(s3, s3_store) -> None:
    with closing(S3Store(location(s3, s3_store.location.bucket, prefix="studio/"))) as store:
        await store.check()

    assert await s3_store.list("") == []


async def test_a_port_that_nobody_listens_on(s3) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        with closing(S3Store(location(s3, "frames", endpoint=endpoint))) as store:
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match=f"{endpoint} cannot be reached"):
                await store.check()
            assert time.monotonic() - begun < 3


async def test_a_host_that_does_not_exist(s3) -> None:
    store = S3Store(location(s3, "frames", endpoint="http://nowhere.invalid"))
    with closing(store), pytest.raises(StoreUnavailable, match="the host is not known"):
        await store.get("a")


@contextmanager
def half_open() -> Iterator[str]:
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


async def test_a_store_that_never_answers_is_given_up(s3) -> None:
    with half_open() as endpoint, closing(S3Store(location(s3, "frames", endpoint=endpoint, read_s=0.3))) as store:
        begun = time.monotonic()
        outcomes = await asyncio.gather(store.put("a", b"x"), store.get("a"), store.list(""), return_exceptions=True)
        took = time.monotonic() - begun

    assert [str(outcome) for outcome in outcomes] == [f"bucket frames at {endpoint} did not answer in time"] * 3
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert 0.5 < took < 2  # silence is tried once more


async def test_something_else_than_s3_is_said_to_be_that(s3) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<p/>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = S3Store(location(s3, "frames", endpoint=endpoint))
        with closing(store), pytest.raises(StoreUnavailable, match="does not speak S3"):
            await store.get("a")


async def test_a_large_file_goes_up_in_parts_and_comes_down_whole(s3, s3_store, tmp_path: Path) -> None:
    path = tmp_path / "0.mp4"
    with path.open("wb") as file:
        for number in range(70):
            file.write(bytes([number]) * MIB)
    await s3_store.put_file("r/0.mp4", path)
    seen = [piece async for piece in s3_store.read("r/0.mp4", 15 * MIB, 2 * MIB)]
    head = s3.client().stat_object(s3_store.location.bucket, "r/0.mp4")

    assert await s3_store.stat("r/0.mp4") == ObjectInfo("r/0.mp4", 70 * MIB)
    assert head.etag.endswith("-5")  # parts of 16 MiB
    assert head.content_type == "video/mp4"
    assert b"".join(seen) == bytes([15]) * MIB + bytes([16]) * MIB
    assert max(map(len, seen)) <= MIB
    assert path.exists()


async def test_a_chunk_of_any_size_is_one_request(s3, s3_store) -> None:
    await s3_store.put("jobs/1/c", memoryview(bytes(20 * MIB)))

    assert "-" not in s3.client().stat_object(s3_store.location.bucket, "jobs/1/c").etag


async def test_more_objects_than_a_page(s3_store) -> None:
    names = [f"jobs/1/{number:04}" for number in range(1100)]
    await asyncio.gather(*(s3_store.put(name, b"") for name in names))

    assert [info.key for info in await s3_store.list("jobs/1/")] == names
    assert await s3_store.delete_prefix("jobs/1/") == 1100
    assert await s3_store.list("") == []


@pytest.mark.parametrize("key", ["../x", "a/../b", "/etc/passwd", "a//b", ".", "a/\0", "a/"])
async def test_keys_are_never_normalised(s3_store, key) -> None:
    with pytest.raises(ObjectMissing):
        await s3_store.put(key, b"x")

    assert await s3_store.list("") == []


@pytest.mark.parametrize("key", ["ü b+%&?#=", "~x", "a/-_.!*'()", "日本"])
async def test_unusual_keys_survive(s3_store, key) -> None:
    await s3_store.put(key, b"x")

    assert (await s3_store.get(key), [info.key for info in await s3_store.list("")]) == (b"x", [key])


async def test_a_cancelled_download_frees_its_connection(s3, s3_store) -> None:
    await s3_store.put("a", bytes(8 * MIB))
    with closing(S3Store(s3_store.location, threads=1)) as store:
        for _ in range(5):
            task = asyncio.create_task(anext(store.read("a")))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert len(await asyncio.wait_for(store.get("a"), 10)) == 8 * MIB


async def test_a_store_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with S3Server(tmp_path) as server:
        server.client().make_bucket("frames")
        with closing(S3Store(location(server, "frames", read_s=1.0))) as store:
            await store.put("a", b"kept")
            server.kill()
            with pytest.raises(StoreUnavailable, match=r"cannot be reached|connection broke"):
                await store.put("b", b"lost")
            server.start()

            assert await store.get("a") == b"kept"
            server.pause()
            try:
                with pytest.raises(StoreUnavailable, match="did not answer in time"):
                    await store.put("b", b"?")
            finally:
                server.resume()
            await store.put("b", b"x")


async def test_a_store_without_space_is_away_not_wrong(tmp_path: Path) -> None:
    with S3Server(tmp_path, volumes=2, volume_mib=1) as server:
        server.client().make_bucket("frames")
        with closing(S3Store(location(server, "frames"))) as store:
            puts = [store.put(f"a/{number}", bytes(MIB)) for number in range(10)]
            outcomes = [await asyncio.gather(put, return_exceptions=True) for put in puts]
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match="it may be full"):
                await store.check()

            assert time.monotonic() - begun < 5
            assert outcomes[0] == [None]
            assert isinstance(outcomes[-1][0], StoreUnavailable)
            assert "500 InternalError: it may be full" in str(outcomes[-1][0])
            assert len(await store.get("a/0")) == MIB
