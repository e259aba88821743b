"""The denoiser's settings as a service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.errors import InvalidSettings
from vitascope_denoiser.settings import DEMO_MODEL, Device, EngineSettings, Precision, Resume
from vitascope_frames.testcard import MODEL_ID as TESTCARD
from vitascope_platform.environment import ServiceSettings


class DenoiserSettings(BaseSettings):
    """Which model is served, and how it is loaded; see `EngineSettings`. Environment: ``VITASCOPE_DENOISER_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_DENOISER_", frozen=True, protected_namespaces=())

    model_path: str = DEMO_MODEL
    """The embedded model, a local diffusers folder, a Hugging Face id, or ``testcard`` for drawn test pictures."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face id."""
    served_model_name: str | None = None
    """Name of the model towards clients, if another."""
    pool: str | None = None
    """Slug of the pool; None to make it from the model's name."""
    device: Device = Device.AUTO
    dit_precision: Precision | None = None
    vae_precision: Precision | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False
    load_timeout_s: float = Field(default=3600.0, gt=0)
    """Longest time that loading may take, download included, seconds."""
    checkpoint_interval: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """Seconds of denoising between two checkpoints of a job; 0 for no checkpoints at all."""
    resume: Resume = Resume.EXACT
    """Where an interrupted job may go on at its checkpoint."""
    testcard_step_s: float = Field(default=0.0, ge=0)
    """Seconds that a step of the testcard takes."""
    testcard_chunk_s: float = Field(default=0.0, ge=0)
    """Seconds that a chunk of the testcard takes."""

    _engine: EngineSettings = PrivateAttr()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.is_testcard and (self.testcard_step_s or self.testcard_chunk_s):
            raise ValueError(f"testcard_step_s and testcard_chunk_s need model_path={TESTCARD}")
        try:
            self._engine = EngineSettings(
                model_path=self.model_path,
                revision=self.revision or None,
                served_model_name=self.served_model_name or None,
                pool=self.pool or None,
                device=self.device,
                dit_precision=self.dit_precision,
                vae_precision=self.vae_precision,
                vae_tiling=self.vae_tiling,
                vae_slicing=self.vae_slicing,
                load_timeout_s=self.load_timeout_s,
                checkpoint_interval=self.checkpoint_interval,
                resume=self.resume,
            )
        except InvalidSettings as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def engine(self) -> EngineSettings:
        """What the engine is told."""
        return self._engine

    @property
    def is_testcard(self) -> bool:
        """Whether test pictures are drawn instead of a model run."""
        return self.model_path == TESTCARD


@dataclass(frozen=True)
class DenoiserServiceSettings(ServiceSettings):
    """All that the denoiser is told."""

    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
