"""The upscaler's settings as a service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.errors import InvalidSettings
from vitascope_platform.comma_list import CommaList
from vitascope_platform.environment import ServiceSettings
from vitascope_upscaler.settings import DEFAULT_MODEL, MOST_MEMORY_MIB, SCALES, UpscalerSettings
from vitascope_weights.device import Device


class UpscalerVariables(BaseSettings):
    """Which networks run, and where; see `UpscalerSettings`. Environment: ``VITASCOPE_UPSCALER_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_UPSCALER_", frozen=True, protected_namespaces=())

    model_path: str = DEFAULT_MODEL
    """Weights for requests that name none: a file, a folder, or a Hugging Face repo id."""
    allowed_models: CommaList[str] = ()
    """Other weights that requests may name, separated by commas."""
    scales: CommaList[int] = tuple(int(scale) for scale in SCALES)
    """Enlargements that are offered, whole numbers separated by commas."""
    device: Device = Device.AUTO
    memory_mib: int | None = Field(default=None, ge=1, le=MOST_MEMORY_MIB)
    """Memory for what is worked on at once, MiB; None for what suits the device."""
    banded: bool = False
    """Whether frames beyond that are worked on in bands instead of being refused."""
    loaded_models: int = Field(default=4, ge=1, le=64)
    """Networks kept loaded."""
    compile: bool = False
    """Whether all networks are compiled by PyTorch at start."""
    denoise_strength: float | None = Field(default=None, ge=0, le=1)
    """How strongly weights named realesr-general-x4v3 remove noise; None for as they are."""

    _upscaler: UpscalerSettings = PrivateAttr()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            self._upscaler = UpscalerSettings(
                model_path=self.model_path,
                allowed_models=self.allowed_models,
                scales=tuple(float(scale) for scale in self.scales),
                device=self.device,
                memory_mib=self.memory_mib,
                banded=self.banded,
                loaded_models=self.loaded_models,
                compile=self.compile,
                denoise_strength=self.denoise_strength,
            )
        except InvalidSettings as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def upscaler(self) -> UpscalerSettings:
        """What the upscaler is told."""
        return self._upscaler


@dataclass(frozen=True)
class UpscalerServiceSettings(ServiceSettings):
    """All that the service is told."""

    upscaler: UpscalerVariables = field(default_factory=UpscalerVariables)
