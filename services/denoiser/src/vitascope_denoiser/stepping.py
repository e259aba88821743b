"""Standing in a pipeline's denoising loop: every step is reported, can end the run, and can be where a run is taken up.

All loops of diffusers pass through ``scheduler.step``, so that one call is the control point. A run is taken up by
calling the pipeline with the same arguments again: until the checkpoint's step the networks return zeros without
computing and ``step`` returns what it returned then; there the scheduler's and the random generators' states are put
back, and the pipeline goes on by itself.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from vitascope_denoiser.blanks import blank, inputs_of, shape_of
from vitascope_denoiser.denoising_loop import Loop, first_tensor, networks, schedulers
from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.snapshot import LoopState, RandomState, Snapshot, State, take

log = logging.getLogger(__name__)


class Steps:
    """The hook, for one call of a pipeline: a context around it."""

    def __init__(
        self,
        pipe: Any,
        generators: Iterable[torch.Generator],
        on_step: Callable[[Steps], None],
        *,
        resume: State | None = None,
        only_first: bool = False,
    ) -> None:
        """Prepare the hook.

        Args:
            pipe: The pipeline that is about to be called.
            generators: Those that it is called with.
            on_step: Called after every step that was computed, and after the one that a run is taken up at; what it
                raises ends the pipeline.
            resume: Where to take the run up; None to begin at the beginning.
            only_first: Cut every schedule down to its first step.
        """
        self._pipe = pipe
        self._generators = tuple(generators)
        self._on_step = on_step
        self._resume = resume
        self._only_first = only_first
        self._device = torch.device(pipe._execution_device)
        self._shapes: dict[str, Any] = dict(resume.shapes) if resume else {}
        self._loops: list[Loop] = []
        self._seconds = resume.seconds if resume else 0.0
        self._begun = 0.0
        self._undo: list[Callable[[], None]] = []
        self._before: list[tuple[Any, dict[str, Any]]] = []
        self.done = 0
        self.replaying = resume is not None
        self.obstacle: str | None = None

    @property
    def total(self) -> int:
        """Steps that there will be; known after the first."""
        return self.main.total

    @property
    def main(self) -> Loop:
        """The loop of the pipeline's own scheduler."""
        own = getattr(self._pipe, "scheduler", None)
        return next((loop for loop in self._loops if loop.scheduler is own), self._loops[0])

    def __enter__(self) -> Self:
        for scheduler in schedulers(self._pipe):
            kind = type(scheduler)
            self._before.append((scheduler, dict(vars(scheduler))))
            scheduler.__class__ = self._watched(kind)
            self._undo.append(functools.partial(setattr, scheduler, "__class__", kind))
        for name, network in networks(self._pipe):
            own = vars(network).get("forward")
            network.forward = self._recorded(name, network.forward)
            self._undo.append(functools.partial(_set_forward, network, own))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._undo:
            self._undo.pop()()
        if self.replaying:
            # What was put back did not fit as a whole, and may not be a scheduler's at all.
            for scheduler, attributes in self._before:
                vars(scheduler).clear()
                vars(scheduler).update(attributes)
        # The classes made for the hook live until the collector comes, and with them all that is held here.
        self._resume = None
        self._before.clear()
        for loop in self._loops:
            loop.model_output = loop.sample = loop.output = None

    def snapshot(self, fingerprint: Mapping[str, str]) -> Snapshot | None:
        """Return the state after the running step, by reference; None where it would not be enough to go on from.

        To be called from ``on_step``: what comes behind the step may use random numbers.
        """
        if self.obstacle is not None:
            return None
        try:
            return take(
                State(
                    step=self.done,
                    seconds=self._seconds + time.monotonic() - self._begun,
                    shapes=dict(self._shapes),
                    random=self._random(),
                    loops=tuple(loop.state() for loop in self._loops),
                ),
                fingerprint,
            )
        except NotResumable as error:
            self._give_up(str(error))
            return None

    def preview_state(self, output: Any) -> State:
        """Return the state of a run that has taken one step, with another output of the main loop's."""
        loops = tuple(
            LoopState(output if loop is self.main else loop.output, loop.scheduler.timesteps[:1], {})
            for loop in self._loops
        )
        return State(step=1, seconds=0.0, shapes=dict(self._shapes), random=self._random(), loops=loops)

    def _watched(self, kind: Any) -> type:
        # The same name and signatures: pipelines look at both.
        @functools.wraps(kind.step)
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            return self._stepped(scheduler, functools.partial(kind.step, scheduler), args, kwargs)

        @functools.wraps(kind.set_timesteps)
        def set_timesteps(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            result = kind.set_timesteps(scheduler, *args, **kwargs)
            self._timed(scheduler)
            return result

        names = {"step": step, "set_timesteps": set_timesteps, "__module__": kind.__module__, "__doc__": kind.__doc__}
        return type(kind.__name__, (kind,), names)

    def _recorded(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            key = f"{name} {inputs_of(args, kwargs)}"
            if self.replaying:
                if key not in self._shapes:
                    raise NotResumable(f"{name} is given other shapes than in the run before")
                return blank(self._shapes[key], self._device)
            output = forward(*args, **kwargs)
            if key not in self._shapes and self.obstacle is None:
                try:
                    self._shapes[key] = shape_of(output)
                except NotResumable as error:
                    self._give_up(str(error))
            return output

        return run

    def _timed(self, scheduler: Any) -> None:
        """Take note that the pipeline has made a schedule: what it will step through."""
        if self._only_first:
            scheduler.timesteps = scheduler.timesteps[:1]
        if any(loop.done for loop in self._loops):
            self._give_up("the pipeline denoises more than once")
        self._loops = [loop for loop in self._loops if loop.scheduler is not scheduler]
        self._loops.append(Loop(scheduler))
        self._begun = time.monotonic()

    def _stepped(self, scheduler: Any, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        loop = self._loop_of(scheduler)
        if loop.done:
            # Some schedulers are only asked for their timesteps.
            self._loops = [other for other in self._loops if other.done]
        loop.model_output = args[0] if args else kwargs.get("model_output")
        loop.sample = args[2] if len(args) > 2 else kwargs.get("sample")
        loop.done += 1
        if self.replaying:
            return self._replayed(loop)
        index = getattr(scheduler, "_step_index", None)
        loop.place = index if index is not None else getattr(scheduler, "_begin_index", None) or 0
        loop.output = step(*args, **kwargs)
        if all(other.done == loop.done for other in self._loops):
            self.done = loop.done
            self._on_step(self)
        return loop.output

    def _loop_of(self, scheduler: Any) -> Loop:
        for loop in self._loops:
            if loop.scheduler is scheduler:
                return loop
        self._give_up("a copy of the scheduler steps beside it")
        self._loops.append(Loop(scheduler))
        return self._loops[-1]

    def _replayed(self, loop: Loop) -> Any:
        resume = self._resume
        if resume is None or len(self._loops) != len(resume.loops):
            raise NotResumable("the pipeline runs another number of schedulers")
        saved = resume.loops[self._loops.index(loop)]
        first = first_tensor(saved.output)
        if first is None or not isinstance(loop.sample, Tensor) or first.shape != loop.sample.shape:
            raise NotResumable("the latents have another shape")
        loop.output = saved.output
        if loop.done == resume.step:
            loop.put_back(saved)
            if all(other.done == resume.step for other in self._loops):
                self._set_random(resume.random)
                self._begun = time.monotonic()
                self.replaying = False
                self.done = resume.step
                self._on_step(self)
        elif loop.done > resume.step:
            raise NotResumable("the pipeline's schedulers take turns in another way")
        return loop.output

    def _give_up(self, why: str) -> None:
        """Note that no checkpoint can be made of this run; a replay cannot go on either.

        Raises:
            NotResumable: The run is being replayed.
        """
        if self.replaying:
            raise NotResumable(why)
        if self.obstacle is None:
            self.obstacle = why
            log.warning("job makes no checkpoints", extra={"reason": why})

    def _random(self) -> RandomState:
        on_device = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None
        return RandomState(torch.get_rng_state(), on_device, tuple(own.get_state() for own in self._generators))

    def _set_random(self, saved: RandomState) -> None:
        if len(saved.generators) != len(self._generators) or (saved.device is None) != (self._device.type != "cuda"):
            raise NotResumable("there are other random generators")
        try:
            torch.set_rng_state(saved.cpu)
            if saved.device is not None:
                torch.cuda.set_rng_state(saved.device, self._device)
            for own, state in zip(self._generators, saved.generators, strict=True):
                own.set_state(state)
        except (RuntimeError, TypeError) as error:
            raise NotResumable(f"its random states do not fit: {error}") from error


def _set_forward(network: Any, own: Any) -> None:
    if own is None:
        del network.forward
    else:
        network.forward = own
