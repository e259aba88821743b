"""A real S3 server for tests, and on it a bucket of each test's own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing

import pytest
from pydantic import SecretStr

from tools.cluster.s3_server import S3Server, s3_server
from vitascope_platform.s3_settings import S3Location
from vitascope_platform.store_s3 import S3Store


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that all tests share; none may stop it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def location(server: S3Server, bucket: str, **changes: object) -> S3Location:
    """Return a location on ``server``, which needs not exist."""
    keys = {"access_key": server.access_key, "secret_key": SecretStr(server.secret_key)}
    return S3Location(**{"name": "frames", "endpoint": server.endpoint, "bucket": bucket, **keys, **changes})


@asynccontextmanager
async def bucket_on(server: S3Server) -> AsyncIterator[S3Store]:
    """Open a store in a fresh bucket, which is removed afterwards."""
    name, client = f"t-{secrets.token_hex(6)}", server.client()
    client.make_bucket(name)
    try:
        with closing(S3Store(location(server, name))) as store:
            yield store
            await store.delete_prefix("")
    finally:
        client.remove_bucket(name)


@pytest.fixture
async def s3_store(s3: S3Server) -> AsyncIterator[S3Store]:
    """An empty bucket on the shared server."""
    async with bucket_on(s3) as store:
        yield store
