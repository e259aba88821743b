"""The interpolator's settings as a service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.errors import InvalidSettings
from vitascope_interpolator.settings import DEFAULT_MODEL, MOST_MEMORY_MIB, InterpolatorSettings
from vitascope_platform.comma_list import CommaList
from vitascope_platform.environment import ServiceSettings
from vitascope_weights.device import Device


class InterpolatorVariables(BaseSettings):
    """Which networks run, and where; see `InterpolatorSettings`. Environment: ``VITASCOPE_INTERPOLATOR_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_INTERPOLATOR_", frozen=True, protected_namespaces=())

    model_path: str = DEFAULT_MODEL
    """Weights for requests that name none: a file, a folder, or a Hugging Face repo id."""
    allowed_models: CommaList[str] = ()
    """Other weights that requests may name, separated by commas."""
    device: Device = Device.AUTO
    memory_mib: int | None = Field(default=None, ge=1, le=MOST_MEMORY_MIB)
    """Memory for what is worked on at once, MiB; None for what suits the device."""
    loaded_models: int = Field(default=2, ge=1, le=64)
    """Networks kept loaded."""

    _interpolator: InterpolatorSettings = PrivateAttr()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            self._interpolator = InterpolatorSettings(
                model_path=self.model_path,
                allowed_models=self.allowed_models,
                device=self.device,
                memory_mib=self.memory_mib,
                loaded_models=self.loaded_models,
            )
        except InvalidSettings as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def interpolator(self) -> InterpolatorSettings:
        """What the interpolator is told."""
        return self._interpolator


@dataclass(frozen=True)
class InterpolatorServiceSettings(ServiceSettings):
    """All that the service is told."""

    interpolator: InterpolatorVariables = field(default_factory=InterpolatorVariables)
