"""Real diffusers classes at tiny size, saved and loaded as a served model is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import BUILDERS

from vitascope_core.errors import Stopped
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec

torch.set_num_threads(1)


@dataclass
class ManualControl:
    """A control that a test holds: it records ticks, and stops when told or at a step.

    With ``hands_back`` a stop gives the work to another worker.
    """

    stop_at: int | None = None
    drain_at: int | None = None
    hands_back: bool = False
    steps: list[tuple[int, int]] = field(default_factory=list)
    ticks: int = 0
    stopped: bool = False
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    draining: list[Callable[[], None]] = field(default_factory=list)
    stepped: threading.Event = field(default_factory=threading.Event)

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        self.ticks += 1
        if step is not None and steps is not None:
            self.steps.append((step, steps))
            self.stepped.set()
            if step == self.drain_at:
                self.drain()
            if step == self.stop_at:
                self.stop()
        if self.stopped:
            raise Stopped("told so")

    def on_stop(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)
        if self.stopped:
            callback()

    def on_draining(self, callback: Callable[[], None]) -> None:
        self.draining.append(callback)

    def drain(self) -> None:
        for callback in self.draining:
            callback()

    @property
    def handing_back(self) -> bool:
        return self.stopped and self.hands_back

    def stop(self) -> None:
        self.stopped = True
        for callback in self.callbacks:
            callback()


@dataclass
class Recorded:
    """An attempt that writes every state at once, and keeps all it is told."""

    checkpoint: bytes | None = None
    saved: dict[int, bytes] = field(default_factory=dict)
    snapshots: dict[int, Any] = field(default_factory=dict)
    resumed_at: list[int] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    previews: dict[int, Any] = field(default_factory=dict)
    last: int = 0

    def resumed(self, step: int, seconds: float) -> None:
        self.resumed_at.append(step)

    def refused(self, why: str) -> None:
        self.refusals.append(why)

    def reached(self, snapshot: Any) -> None:
        from vitascope_denoiser.snapshot import dumps

        self.snapshots[snapshot.step] = snapshot
        self.saved[snapshot.step] = dumps(snapshot)

    def denoised(self, step: int) -> None:
        self.last = step

    def preview(self, index: int, frames: Any) -> None:
        assert index not in self.previews
        self.previews[index] = frames


@pytest.fixture(scope="session")
def new_attempt() -> type[Recorded]:
    return Recorded


@pytest.fixture
def control() -> ManualControl:
    return ManualControl()


@pytest.fixture(scope="session")
def new_control() -> type[ManualControl]:
    return ManualControl


@pytest.fixture(scope="session")
def new_spec() -> Callable[..., DenoiseSpec]:
    def make(**changes: Any) -> DenoiseSpec:
        fields = {
            "prompt": "a lighthouse",
            "width": 64,
            "height": 48,
            "num_inference_steps": 3,
            "seeds": (7,),
            "num_frames": 9,
            "guidance_scale": 4.0,
        }
        return DenoiseSpec(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def new_job(new_spec: Callable[..., DenoiseSpec]) -> Callable[..., JobSpec]:
    def make(cuts: tuple[int, ...] = (5, 4), **changes: Any) -> JobSpec:
        spec = new_spec(num_frames=sum(cuts), **changes)
        return JobSpec(
            id="video_1",
            kind=JobKind.VIDEO,
            pool="demo",
            model="vitascope/demo",
            created_ms=0,
            deadline_ms=0,
            denoise=spec,
            cuts=cuts,
            output=OutputSpec("mp4", 50),
            fps=Fraction(16),
        )

    return make


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by name (`tiny_models`)."""
    root = tmp_path_factory.mktemp("models")

    def build(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                BUILDERS[name]().save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="session")
def load_pipe(folder_of: Callable[[str], Path]) -> Callable[..., Any]:
    """Load a tiny model afresh, as the engine does."""
    from vitascope_denoiser.pipeline import load
    from vitascope_denoiser.settings import EngineSettings

    def open_pipe(name: str, **settings: Any) -> Any:
        return load(EngineSettings(str(folder_of(name)), device="cpu", **settings))

    return open_pipe


@pytest.fixture(scope="session")
def new_engine(load_pipe: Callable[..., Any]) -> Callable[..., Any]:
    """Load a tiny model afresh into an engine that makes and uses checkpoints."""
    from vitascope_denoiser.engine import DiffusersEngine
    from vitascope_denoiser.fingerprint import fingerprint_of
    from vitascope_denoiser.settings import EngineSettings

    def make(name: str, *, change: Callable[[Any], None] = lambda pipe: None, **settings: Any) -> Any:
        pipe = load_pipe(name, **settings)
        change(pipe)
        return DiffusersEngine(pipe, fingerprint_of(pipe, EngineSettings(device="cpu", **settings)))

    return make
