"""The gateway's settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_platform.comma_list import CommaList

MEBIBYTE = 1024 * 1024

MAX_QUEUED = 1000
"""Jobs that wait for one pool, unless told otherwise: at a minute each, most of a day for one replica."""


class GatewaySettings(BaseSettings):
    """How the gateway treats requests. Environment: ``VITASCOPE_GATEWAY_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_GATEWAY_", frozen=True, extra="forbid")

    public_base_url: str | None = None
    """Where clients reach this server, for example https://media.example.org; None: as each request was addressed."""
    sync_timeout_s: float = Field(default=300.0, gt=0, le=590)
    """How long an image request waits for its job, seconds. The SDKs give up at 600 and then send it again."""
    deadline_s: int = Field(default=24 * 3600, ge=60)
    """Age at which an unfinished job is ended as failed, seconds."""
    result_ttl_s: int = Field(default=7 * 24 * 3600, ge=60)
    """How long finished files are kept, seconds."""
    max_body_bytes: int = Field(default=32 * MEBIBYTE, ge=64 * 1024)
    """Largest request body. A reference image may be a data URL of 20 MiB."""
    max_text_part_bytes: int = Field(default=21 * MEBIBYTE, ge=64 * 1024)
    """Largest text part of a multipart body; these are held in memory."""
    max_upload_bytes: int = Field(default=2048 * MEBIBYTE, ge=64 * 1024)
    """Largest request body with an existing video in it; it goes to disk as it comes."""
    poll_after_ms: int = Field(default=1000, ge=50, le=60_000)
    """What the SDK's poll helpers are told to wait between two looks at an unfinished video, milliseconds."""
    retry_after_s: int = Field(default=2, ge=1, le=60)
    """What clients are told to wait during an outage or at a full queue, seconds. The Node SDK ignores more than 60."""
    max_queued: int = Field(default=MAX_QUEUED, ge=1)
    """Jobs of one pool that wait or are denoised; further ones are refused."""
    cors_origins: CommaList[str] = ()
    """Origins whose browser pages may call the API, separated by commas; * for all."""

    @field_validator("public_base_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError(
                "public_base_url must be an http or https URL without query, like https://media.example.org"
            )
        return value.rstrip("/")

    @field_validator("cors_origins")
    @classmethod
    def _without_slash(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(origin.rstrip("/") for origin in value)
