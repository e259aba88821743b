"""What the upscaler is told at start. Plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from vitascope_core.errors import InvalidSettings
from vitascope_weights.choice import check_names, every_name
from vitascope_weights.device import Device

DEFAULT_MODEL = "ai-forever/Real-ESRGAN"
"""Public weights of RRDBNet with 23 blocks for 2, 4 and 8 times the size."""

GENERAL = "realesr-general-x4v3"
"""Part of the name of the weights that `UpscalerSettings.denoise_strength` is for."""

SCALES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
MOST_SCALE = 8

MOST_MEMORY_MIB = 128 * 1024


@dataclass(frozen=True, slots=True)
class UpscalerSettings:
    """Which networks may run, and where.

    Attributes:
        model_path: Weights for requests that name none: a file, a folder with ``RealESRGAN_x4.pth``, or a Hugging Face
            repo (``owner/name`` or ``owner/name:file``).
        allowed_models: Other weights that requests may name, written as they name them.
        scales: Enlargements that are offered, each from 1 to 8.
        device: Where the networks run.
        memory_mib: Memory for what is worked on at once; None for what suits the device.
        banded: Whether frames that this is too little for are worked on in bands, which takes several times the work,
            instead of being refused.
        loaded_models: Networks kept loaded; the one that was used longest ago makes room.
        compile: Whether the networks are compiled by PyTorch, all of them at start.
        denoise_strength: How strongly weights named realesr-general-x4v3 remove noise, 0 to 1, by blending them with
            realesr-general-wdn-x4v3 from the same place; None for those weights alone.

    Raises:
        InvalidSettings: A value is malformed.
    """

    model_path: str = DEFAULT_MODEL
    allowed_models: tuple[str, ...] = ()
    scales: tuple[float, ...] = SCALES
    device: Device = Device.AUTO
    memory_mib: int | None = None
    banded: bool = False
    loaded_models: int = 4
    compile: bool = False
    denoise_strength: float | None = None

    def __post_init__(self) -> None:
        # Command lines hold text: "cuda" is taken as well as Device.CUDA.
        object.__setattr__(self, "device", Device(self.device))
        check_names(self.model_path, self.allowed_models)
        if not self.scales or not all(1 <= scale <= MOST_SCALE for scale in self.scales):
            told = ", ".join(f"{scale:g}" for scale in self.scales)
            raise InvalidSettings(f"scales must be from 1 to {MOST_SCALE}, got {told or 'none'}")
        if self.memory_mib is not None and not 1 <= self.memory_mib <= MOST_MEMORY_MIB:
            raise InvalidSettings(f"memory_mib must be from 1 to {MOST_MEMORY_MIB}, got {self.memory_mib}")
        if self.loaded_models < 1:
            raise InvalidSettings(f"loaded_models must be at least 1, got {self.loaded_models}")
        self._check_denoising()

    def _check_denoising(self) -> None:
        strength = self.denoise_strength
        if strength is None:
            return
        if not 0 <= strength <= 1:
            raise InvalidSettings(f"denoise_strength must be from 0 to 1, got {strength:g}")
        if not any(GENERAL in path for path in self.models):
            raise InvalidSettings(f"denoise_strength is for weights named {GENERAL}; none of the models is")

    @property
    def models(self) -> tuple[str, ...]:
        """All that requests may name, the default first."""
        return every_name(self.model_path, self.allowed_models)
