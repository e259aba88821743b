"""What the interpolator is told at start, and what it then says it can do. Plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import StageName
from vitascope_weights.choice import check_names, every_name
from vitascope_weights.device import Device

DEFAULT_MODEL = "elfgum/RIFE-4.22.lite"
"""The public weights of RIFE 4.22.lite."""

EXPS = (1, 2, 3, 4)
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)

MOST_MEMORY_MIB = 16 * 1024
"""Larger batches would hold more elements than 32-bit indices reach, and are no faster."""


@dataclass(frozen=True, slots=True)
class InterpolatorSettings:
    """Which networks may run, and where.

    Attributes:
        model_path: Weights for requests that name none: a file, a folder with ``flownet.pkl``, or a Hugging Face repo
            (``owner/name`` or ``owner/name:file``).
        allowed_models: Other weights that requests may name, written as they name them.
        device: Where the networks run.
        memory_mib: Memory for what is worked on at once; None for what suits the device.
        loaded_models: Networks kept loaded; the one that was used longest ago makes room.

    Raises:
        InvalidSettings: A value is malformed.
    """

    model_path: str = DEFAULT_MODEL
    allowed_models: tuple[str, ...] = ()
    device: Device = Device.AUTO
    memory_mib: int | None = None
    loaded_models: int = 2

    def __post_init__(self) -> None:
        # Command lines hold text: "cuda" is taken as well as Device.CUDA.
        object.__setattr__(self, "device", Device(self.device))
        check_names(self.model_path, self.allowed_models)
        if self.memory_mib is not None and not 1 <= self.memory_mib <= MOST_MEMORY_MIB:
            raise InvalidSettings(f"memory_mib must be from 1 to {MOST_MEMORY_MIB}, got {self.memory_mib}")
        if self.loaded_models < 1:
            raise InvalidSettings(f"loaded_models must be at least 1, got {self.loaded_models}")

    @property
    def models(self) -> tuple[str, ...]:
        """All that requests may name, the default first."""
        return every_name(self.model_path, self.allowed_models)


def card_of(settings: InterpolatorSettings) -> StageCard:
    """Return what an interpolator with these settings can do."""
    return StageCard(StageName.INTERPOLATE, exps=EXPS, flow_scales=SCALES, models=settings.models)
