"""Fixtures of the platform's tests: the adapters, each held to the same contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import pytest

from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec
from vitascope_core.plan import Plan
from vitascope_core.ports import Bus, KeyValue, ObjectStore
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.clock import ManualClock
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.kv_sqlite import SqliteFile
from vitascope_platform.store_local import LocalStore
from vitascope_platform.store_memory import MemoryStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
async def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyValue]:
    if request.param == "memory":
        yield MemoryKeyValue()
    else:
        with SqliteFile(tmp_path / "kv.db") as file:
            yield file.bucket("jobs")


@pytest.fixture(params=["memory"])
def bus(request: pytest.FixtureRequest, clock: ManualClock) -> Bus:
    return MemoryBus(clock, ack_wait_s=30, duplicate_window_s=600)


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "store")


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
