"""Intermediate pictures: what the latents would become if the network's present guess were right."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vitascope_denoiser.denoising_loop import Loop


def foretells(scheduler: Any) -> bool:
    """Return whether a scheduler's steps tell what they take for the clean latents."""
    return _in_flow(scheduler) or _keeps_clean(scheduler)


def predicted(loop: Loop) -> Tensor | None:
    """Return the clean latents that the last step took for granted, in the form of its output; None if unknown.

    Multistep solvers that work on predictions of the clean latents keep the newest as ``model_outputs[-1]``. In flow
    matching the latents are (1 - sigma) * clean + sigma * noise and the network predicts noise - clean.
    """
    scheduler = loop.scheduler
    if _keeps_clean(scheduler):
        kept: Tensor | None = scheduler.model_outputs[-1]
        return kept
    if _in_flow(scheduler):
        sigma = scheduler.sigmas[loop.place].to(loop.sample.device)
        clean: Tensor = loop.sample.float() - sigma * loop.model_output.float()
        return clean
    return None


def _in_flow(scheduler: Any) -> bool:
    # The name, for a scheduler under the hook is of another class of the same name.
    return type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"


def _keeps_clean(scheduler: Any) -> bool:
    config = scheduler.config
    clean = config.get("predict_x0") or str(config.get("algorithm_type", "")).endswith("dpmsolver++")
    return bool(clean) and hasattr(scheduler, "model_outputs")


def with_latents(output: Any, latents: Tensor) -> Any:
    """Return what ``step`` returned with other latents in it, in their dtype."""
    if isinstance(output, dict):
        [name, *_] = output
        return type(output)(**{**output, name: latents.to(output[name].dtype)})
    return (latents.to(output[0].dtype), *output[1:])
