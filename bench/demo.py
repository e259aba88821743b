"""The demonstration models on what they were not trained on; the video model's figures are shares of clips."""

from __future__ import annotations

from dataclasses import fields

import torch

from tools.train import enlargement, evaluation, interpolation
from tools.train.fidelity import Fidelity
from vitascope_models.catalogue import DEMO, DEMO_ESRGAN, DEMO_RIFE, DEMO_STRIPES

FROM_FRAMES = 60
STRIPED = 40


async def measure() -> list[str]:
    torch.set_num_threads(2)
    pipe = evaluation.opened(evaluation.packed(DEMO))
    texts = evaluation.from_texts(pipe, evaluation.held_out(200))
    frames = evaluation.from_frames(pipe, evaluation.held_out(FROM_FRAMES))
    plain = evaluation.stripes(pipe, evaluation.held_out(STRIPED))
    pipe.load_lora_weights(evaluation.packed(DEMO_STRIPES))
    striped = evaluation.stripes(pipe, evaluation.held_out(STRIPED))
    between = interpolation.evaluate(evaluation.packed(DEMO_RIFE))
    larger = enlargement.evaluate(evaluation.packed(DEMO_ESRGAN))
    return [
        f"from a text, {_told(texts)}",
        f"from a first frame too, {_told(frames)}",
        f"striped, with the LoRA {striped:.1%} of an object against {plain:.1%} without",
        *(f"RIFE, {what}: {_gained(fidelity)}" for what, fidelity in _fidelities(between)),
        *(f"Real-ESRGAN, {what}: {_gained(fidelity)}" for what, fidelity in _fidelities(larger)),
    ]


def _fidelities(measured: interpolation.Measured | enlargement.Measured) -> list[tuple[str, Fidelity]]:
    values = [(field.name, getattr(measured, field.name)) for field in fields(measured)]
    return [(name.replace("_", " "), value) for name, value in values if isinstance(value, Fidelity)]


def _gained(fidelity: Fidelity) -> str:
    return f"{fidelity.network:.1f} dB against {fidelity.plain:.1f} without a network"


def _told(figures: evaluation.Figures) -> str:
    return (
        f"{figures.clips} clips: colour {figures.colour:.1%}, direction {figures.direction:.1%}, "
        f"shape {figures.shape:.1%}, background {figures.background:.1%}; {figures.seconds:.2f} s a clip"
    )
