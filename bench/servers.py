"""A platform over a real broker and a real store, for measurements."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tools.cluster.nats_server import nats_server
from tools.cluster.s3_server import s3_server
from vitascope_platform.bootstrap import bootstrap
from vitascope_platform.bootstrap_nats import Layout
from vitascope_platform.connection import connected
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.nats_connection import NatsSettings
from vitascope_platform.platform import Platform
from vitascope_platform.s3_settings import S3Settings

DAY_S = 86_400


@asynccontextmanager
async def real_platform(pool: str) -> AsyncIterator[Platform]:
    """Start a broker that syncs every write and a store, make streams and buckets, connect."""
    with (
        tempfile.TemporaryDirectory() as folder,
        nats_server(Path(folder) / "nats") as broker,
        s3_server(Path(folder) / "s3") as store,
    ):
        nats = NatsSettings(url=broker.url)
        s3 = S3Settings(endpoint=store.endpoint, access_key=store.access_key, secret_key=store.secret_key)
        await bootstrap(nats, s3, Layout(pools=(pool,)), DAY_S)
        async with connected("bench", ServiceSettings(nats=nats, s3=s3)) as connection:
            yield connection.platform
