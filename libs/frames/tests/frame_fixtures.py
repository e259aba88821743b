"""Fixtures of the tests that handle frames: the smallest store, a control stopped by hand, specs of the testcard."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path

import pytest

from vitascope_core.errors import ObjectMissing, Stopped
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec
from vitascope_core.plan import Plan
from vitascope_core.ports import Buffer, ObjectInfo


class DictStore:
    """The smallest object store there can be."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def put(self, key: str, data: Buffer) -> None:
        self.objects[key] = bytes(data)

    async def put_file(self, key: str, path: Path) -> None:
        self.objects[key] = await asyncio.to_thread(path.read_bytes)

    async def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    async def stat(self, key: str) -> ObjectInfo | None:
        return ObjectInfo(key, len(self.objects[key])) if key in self.objects else None

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        end = None if length is None else start + length
        yield (await self.get(key))[start:end]

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return [ObjectInfo(key, len(data)) for key, data in sorted(self.objects.items()) if key.startswith(prefix)]

    async def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    async def delete_prefix(self, prefix: str) -> int:
        found = await self.list(prefix)
        for info in found:
            del self.objects[info.key]
        return len(found)


class SwitchControl:
    """A control that a test stops by hand."""

    def __init__(self) -> None:
        self.ticks: list[tuple[int | None, int | None]] = []
        self.ticked = threading.Event()
        self._told = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._on_draining: list[Callable[[], None]] = []
        self.handing_back = False

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        if self.stopped:
            raise Stopped("told by the test")
        self.ticks.append((step, steps))
        self.ticked.set()

    @property
    def stopped(self) -> bool:
        return self._told.is_set()

    def on_stop(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def on_draining(self, callback: Callable[[], None]) -> None:
        self._on_draining.append(callback)

    def drain(self) -> None:
        for callback in self._on_draining:
            callback()

    def stop(self, *, handing_back: bool = False) -> None:
        self.handing_back = handing_back
        self._told.set()
        for callback in self._callbacks:
            callback()


@pytest.fixture
def store() -> DictStore:
    return DictStore()


@pytest.fixture
def control() -> SwitchControl:
    return SwitchControl()


@pytest.fixture
def new_control() -> type[SwitchControl]:
    return SwitchControl


@pytest.fixture
def make_spec() -> Callable[..., JobSpec]:
    """Return a maker of specs of the testcard."""

    def make(
        *,
        kind: JobKind = JobKind.VIDEO,
        cuts: tuple[int, ...] = (3, 2),
        size: tuple[int, int] = (64, 48),
        seeds: tuple[int, ...] = (7,),
        steps: int = 2,
        fps: Fraction = Fraction(16),
        plan: Plan = Plan(),  # noqa: B008 - frozen
        file_format: str = "mp4",
        compression: int = 50,
    ) -> JobSpec:
        return JobSpec(
            id="video_1",
            kind=kind,
            pool="testcard",
            model="testcard",
            created_ms=0,
            deadline_ms=10**15,
            denoise=DenoiseSpec(
                prompt="a ruled card",
                width=size[0],
                height=size[1],
                num_inference_steps=steps,
                seeds=seeds,
                num_frames=sum(cuts),
            ),
            cuts=cuts,
            output=OutputSpec(file_format, compression),
            fps=fps,
            plan=plan,
        )

    return make
