"""The embedded model, which runs anywhere without a download: what it is asked for where a request says nothing."""

from __future__ import annotations

from fractions import Fraction

from vitascope_core.card import Defaults
from vitascope_models.catalogue import DEMO

DEMO_PROMPT = "a red circle moves right on a blue background"

DEMO_NOTE = f"The demo model draws one shape that moves. Try: {DEMO_PROMPT}."

MAX_DEMO_PIXELS = 2**25
"""Of one output: minutes on a CPU."""


def example_prompt(model: str) -> str:
    """Return what to try a model with; the demo model knows few words."""
    return DEMO_PROMPT if model == DEMO else "A curious raccoon"


def demo_defaults() -> Defaults:
    """Return what it was trained at, and settings that take some seconds on two CPU cores."""
    return Defaults(width=64, height=64, num_inference_steps=16, num_frames=17, fps=Fraction(8), guidance_scale=3.0)
