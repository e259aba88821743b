"""What a pipeline's denoising loop is made of: its schedulers, each in a loop of its own, and its networks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.snapshot import LoopState

_NETWORKS = ("transformer", "unet", "controlnet")
"""Beginnings of the names of components that run in every step."""


@dataclass(eq=False, slots=True)
class Loop:
    """A scheduler in the pipeline's loop; some pipelines run two, for example for video and audio.

    Attributes:
        done: Steps it has taken.
        place: Index of the running or last step in the schedule.
        model_output: What the last step was given: the networks' prediction, with guidance.
        sample: What the last step was given: the latents before it.
        output: What the last step returned.
    """

    scheduler: Any
    done: int = 0
    place: int = 0
    model_output: Any = None
    sample: Any = None
    output: Any = None

    @property
    def total(self) -> int:
        """Steps that the pipeline will take: those of the schedule, from where an input picture lets it begin."""
        return len(self.scheduler.timesteps) - (getattr(self.scheduler, "_begin_index", None) or 0)

    def state(self) -> LoopState:
        """Return what the last step left, by reference."""
        return LoopState(self.output, self.scheduler.timesteps, _attributes(self.scheduler))

    def put_back(self, saved: LoopState) -> None:
        """Make the scheduler what it was after the step.

        Raises:
            NotResumable: The schedule is another, or the state is no scheduler's.
        """
        here, there = self.scheduler.timesteps, saved.timesteps
        if here.dtype != there.dtype or not torch.equal(here.cpu(), there.cpu()):
            raise NotResumable("the pipeline made another schedule")
        for name in saved.attributes:
            if not name.isidentifier() or callable(getattr(type(self.scheduler), name, None)):
                raise NotResumable(f"{name!r} is no attribute of a scheduler's state")
        for name in _attributes(self.scheduler):
            del vars(self.scheduler)[name]
        vars(self.scheduler).update(saved.attributes)


def schedulers(pipe: Any) -> list[Any]:
    """Return the schedulers among a pipeline's components, each once."""
    found = (part for part in pipe.components.values() if hasattr(part, "step") and hasattr(part, "set_timesteps"))
    return list({id(part): part for part in found}.values())


def networks(pipe: Any) -> list[tuple[str, Any]]:
    """Return the networks that run in every step, each once, and their names."""
    found = (
        (name, part)
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module) and name.startswith(_NETWORKS)
    )
    return list({id(part): (name, part) for name, part in found}.values())


def first_tensor(output: Any) -> Tensor | None:
    """Return the latents among what ``step`` returned."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output
    first = values[0] if isinstance(values, (list, tuple)) and values else None
    return first if isinstance(first, Tensor) else None


def unhooked(pipe: Any) -> Any:
    """Return a copy of a pipeline that is under the hook, with schedulers of its own; networks are shared."""
    copied = copy.copy(pipe)
    for name, part in pipe.components.items():
        if any(part is scheduler for scheduler in schedulers(pipe)):
            kind: Any = type(part).__mro__[1]
            # Not as an attribute: the pipeline would write it into its configuration.
            vars(copied)[name] = kind.from_config(part.config)
    return copied


def _attributes(scheduler: Any) -> dict[str, Any]:
    """Return what a scheduler keeps, besides its configuration."""
    return {name: value for name, value in vars(scheduler).items() if name != "_internal_dict" and not callable(value)}
