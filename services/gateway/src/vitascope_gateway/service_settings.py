"""The gateway's settings as a service, from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.environment import ServiceSettings, is_service_link


class ServerSettings(BaseSettings):
    """How the gateway runs as a service of its own. Environment: ``VITASCOPE_GATEWAY_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_GATEWAY_", frozen=True, extra="forbid")

    host: str = "0.0.0.0"  # noqa: S104 - clients are on other machines
    """Address that the API listens on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port of the API; 0 for any free one, told in the log."""
    shutdown_s: float = Field(default=20.0, ge=0)
    """Time that running requests get at shutdown, seconds."""
    reaper_every_s: float = Field(default=30.0, gt=0)
    """Pause between two looks over all jobs, seconds; up to a half is added by chance."""
    reaper_grace_s: float = Field(default=60.0, ge=0)
    """How long a job may be without a message, or objects without a job, before something is done, seconds."""

    @field_validator("port", mode="before")
    @classmethod
    def _is_no_service_link(cls, value: object) -> object:
        # Kubernetes puts VITASCOPE_GATEWAY_PORT=tcp://… into pods beside a Service named vitascope-gateway.
        return 8080 if is_service_link(value) else value


@dataclass(frozen=True)
class GatewayServiceSettings(ServiceSettings):
    """All that the gateway is told."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    server: ServerSettings = field(default_factory=ServerSettings)
