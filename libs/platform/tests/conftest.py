"""Fixtures of the platform's tests: the adapters, each held to the same contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import pytest
from nats_fixtures import ACK_WAIT_S, WINDOW_S, installed
from passing import Passing
from s3_fixtures import bucket_on

from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec
from vitascope_core.plan import Plan
from vitascope_core.ports import Bus, KeyValue, ObjectStore
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.clock import ManualClock
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.kv_sqlite import SqliteFile
from vitascope_platform.store_local import LocalStore
from vitascope_platform.store_memory import MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "nats"])
async def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyValue]:
    if request.param == "memory":
        yield MemoryKeyValue()
    elif request.param == "sqlite":
        with SqliteFile(tmp_path / "kv.db") as file:
            yield file.bucket("jobs")
    else:
        async with installed(request.getfixturevalue("broker")) as connection:
            yield NatsKeyValue(connection, "jobs")


@pytest.fixture(params=["memory", "nats"])
async def timed_bus(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[tuple[Bus, Passing]]:
    if request.param == "memory":
        passing = Passing(clock.advance, ack_wait_s=30, window_s=600, patience_s=0)
        yield MemoryBus(clock, ack_wait_s=30, duplicate_window_s=600), passing
    else:
        passing = Passing(asyncio.sleep, ACK_WAIT_S, WINDOW_S, patience_s=10)
        async with installed(request.getfixturevalue("broker")) as connection:
            yield NatsBus(connection, ack_wait_s=ACK_WAIT_S), passing


@pytest.fixture
def bus(timed_bus: tuple[Bus, Passing]) -> Bus:
    return timed_bus[0]


@pytest.fixture
def passing(timed_bus: tuple[Bus, Passing]) -> Passing:
    return timed_bus[1]


@pytest.fixture(params=["memory", "local", "s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "local":
        yield LocalStore(tmp_path / "store")
    else:
        async with bucket_on(request.getfixturevalue("s3")) as opened:
            yield opened


@pytest.fixture
def spec(clock: ManualClock) -> JobSpec:
    now_ms = clock.now_ns() // 1_000_000
    return JobSpec(
        id="video_1",
        kind=JobKind.VIDEO,
        pool="p",
        model="m",
        created_ms=now_ms,
        deadline_ms=now_ms + 86_400_000,
        denoise=DenoiseSpec("a cat", 64, 64, 4, seeds=(7,), num_frames=9),
        cuts=(4, 4, 1),
        output=OutputSpec("mp4", 50),
        fps=Fraction(16),
        plan=Plan(),
    )
