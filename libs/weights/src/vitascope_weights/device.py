"""Where networks run. No torch, so that settings may name it."""

from __future__ import annotations

from enum import StrEnum


class Device(StrEnum):
    """Where networks run."""

    AUTO = "auto"
    """The GPU if there is one, else the CPU."""
    CPU = "cpu"
    CUDA = "cuda"
