"""The hook in the denoising loop and its checkpoints: CPU time of the demo model on one thread (hook: 1.02 at most)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from vitascope_core.job import DenoiseSpec
from vitascope_denoiser.call import Call
from vitascope_denoiser.engine import DiffusersEngine, Unkept
from vitascope_denoiser.fingerprint import fingerprint_of
from vitascope_denoiser.pipeline import load
from vitascope_denoiser.settings import Device, EngineSettings
from vitascope_denoiser.snapshot import Snapshot, dumps
from vitascope_denoiser.stepping import Steps

ROUNDS = 8
STEPS = 10
EMPTY_STEPS = 300
SPEC = DenoiseSpec("a lighthouse", 128, 128, STEPS, (7,), num_frames=17, guidance_scale=5.0)


class _Control:
    """Hears every step, and wants nothing."""

    stopped = handing_back = False

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        pass

    def on_stop(self, callback: Callable[[], None]) -> None:
        pass

    def on_draining(self, callback: Callable[[], None]) -> None:
        pass


class _Newest(Unkept):
    """Keeps what a step left, as a job does between two checkpoints."""

    snapshot: Snapshot

    def reached(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


class _EmptyLoop:
    """A pipeline whose two networks' calls in each step cost nothing, so that the hook's own cost shows."""

    _execution_device = torch.device("cpu")

    def __init__(self, scheduler: Any, latents: torch.Tensor) -> None:
        self.scheduler = scheduler
        self.transformer = torch.nn.Identity()
        self._latents = latents

    @property
    def components(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler, "transformer": self.transformer}

    @torch.no_grad()
    def __call__(self) -> None:
        self.scheduler.set_timesteps(EMPTY_STEPS)
        latents = self._latents
        for timestep in self.scheduler.timesteps:
            self.transformer(latents)
            guess = self.transformer(latents)
            latents = self.scheduler.step(guess, timestep, latents, return_dict=False)[0]


async def measure() -> list[str]:
    """Return the lines of the report."""
    return await asyncio.to_thread(_measure)


def _measure() -> list[str]:
    torch.set_num_threads(1)
    settings = EngineSettings(device=Device.CPU)
    pipe = load(settings)
    engine, newest = DiffusersEngine(pipe, fingerprint_of(pipe, settings)), _Newest()
    runs = {
        "plain": lambda: _plain(pipe),
        "kept": lambda: engine.denoise([SPEC], [_Control()], [newest]),
        "previews": lambda: engine.denoise([replace(SPEC, previews=3)], [_Control()], [newest]),
        "write": lambda: dumps(newest.snapshot),
    }
    seconds = _least({"kept": runs["kept"]} | runs)
    step = seconds["plain"] / STEPS
    [latents] = engine.denoise([SPEC], [_Control()])
    hook = _hook_seconds(type(pipe.scheduler).from_config(pipe.scheduler.config), latents.z)
    data = dumps(newest.snapshot)
    return [
        f"a step of {step * 1e3:.0f} ms under the hook, its state taken and not written   ratio {1 + hook / step:.3f}",
        f"writing a checkpoint, beside the steps, to a step   ratio {seconds['write'] / step:.3f}",
        f"a job with three previews to one without   ratio {seconds['previews'] / seconds['plain']:.2f}",
        f"a checkpoint of {len(data):,} bytes to its latents   ratio {len(data) / latents.z.nbytes:.1f}",
    ]


def _plain(pipe: Any) -> None:
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SPEC.seeds]
    with torch.no_grad():
        pipe(**Call(pipe).arguments(SPEC), generator=generators, output_type="latent")


def _hook_seconds(scheduler: Any, latents: torch.Tensor) -> float:
    """Return what the hook adds to a step: the difference of loops that do nothing else, for theirs is steady."""
    loop = _EmptyLoop(scheduler, latents)

    def hooked() -> None:
        with Steps(loop, [torch.Generator()], lambda steps: taken.append(steps.snapshot({}))):
            loop()
        taken.clear()

    taken: list[Any] = []
    seconds = _least({"plain": loop, "hooked": hooked})
    return (seconds["hooked"] - seconds["plain"]) / EMPTY_STEPS


def _least(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the least CPU time of each, run in turns: what else the machine does only adds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun = time.process_time()
            run()
            seconds[name].append(time.process_time() - begun)
    return {name: min(times) for name, times in seconds.items()}
