"""The settings of a service: read from the environment, all at once, before anything is begun."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from vitascope_core.errors import InvalidSettings
from vitascope_platform.faults import FaultSettings
from vitascope_platform.logs import LogFormat
from vitascope_platform.nats_connection import NatsSettings
from vitascope_platform.s3_settings import S3Settings
from vitascope_platform.settings import WorkerSettings


class LogSettings(BaseSettings):
    """What is logged. Environment: ``VITASCOPE_LOG_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_LOG_", frozen=True)

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level logged."""
    format: LogFormat = LogFormat.TEXT
    """Whom the lines are for."""

    @field_validator("level", "format", mode="before")
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class HealthSettings(BaseSettings):
    """Where the service tells how it is. Environment: ``VITASCOPE_HEALTH_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_HEALTH_", frozen=True)

    host: str = "0.0.0.0"  # noqa: S104 - probes come from other machines
    """Address of the health and metrics port."""
    port: int = Field(default=8081, ge=0, le=65535)
    """The port; 0 for any free one, told in the log."""


class TraceSettings(BaseSettings):
    """Where traces go. Environment: ``VITASCOPE_OTLP_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_OTLP_", frozen=True)

    endpoint: str | None = Field(
        default=None, validation_alias=AliasChoices("VITASCOPE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    )
    """Base URL of an OTLP collector over HTTP, for example http://collector:4318; None: no traces are recorded."""


@dataclass(frozen=True)
class ServiceSettings:
    """What every service is told. A service's own settings are fields of a subclass."""

    log: LogSettings = field(default_factory=LogSettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    traces: TraceSettings = field(default_factory=TraceSettings)
    nats: NatsSettings = field(default_factory=NatsSettings)
    s3: S3Settings = field(default_factory=S3Settings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    fault: FaultSettings = field(default_factory=FaultSettings)


S = TypeVar("S", bound=ServiceSettings)


def read_settings(kind: type[S]) -> S:
    """Return a service's settings.

    Raises:
        InvalidSettings: A variable is malformed, contradicts another, or begins like one of the service's and is none.
    """
    parts: dict[str, Any] = {}
    for part in fields(kind):
        make = part.default_factory
        if not (isinstance(make, type) and issubclass(make, BaseSettings)):
            raise TypeError(f"{kind.__name__}.{part.name} needs a settings class as its default_factory")
        parts[part.name] = _read(make)
    _refuse_unknown([type(part) for part in parts.values()], os.environ)
    return kind(**parts)


def _read(kind: type[BaseSettings]) -> BaseSettings:
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if error.title != kind.__name__:  # of settings that are read for these
            raise InvalidSettings(message) from error
        raise InvalidSettings(f"{_variable(kind, first['loc'])}: {message}") from error
    except SettingsError as error:
        raise InvalidSettings(f"{_prefix(kind)}*: {error}") from error


def _variable(kind: type[BaseSettings], place: tuple[int | str, ...]) -> str:
    """Return the name of the variable that an error is about."""
    if not place:
        return f"{_prefix(kind)}*"
    name = str(place[0])
    return _names(kind, name)[0] if name in kind.model_fields else name


def _prefix(kind: type[BaseSettings]) -> str:
    return kind.model_config.get("env_prefix", "").upper()


def _names(kind: type[BaseSettings], name: str) -> list[str]:
    """Return the variables that set a field."""
    alias = kind.model_fields[name].validation_alias
    if alias is None:
        return [f"{_prefix(kind)}{name.upper()}"]
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return [choice.upper() for choice in choices if isinstance(choice, str)]


_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")
"""What Kubernetes puts into pods for every Service, whatever it is called: VITASCOPE_GATEWAY_SERVICE_HOST."""


def _refuse_unknown(kinds: list[type[BaseSettings]], environment: Mapping[str, str]) -> None:
    prefixes = tuple(prefix for kind in kinds if (prefix := _prefix(kind)))
    known = {variable for kind in kinds for name in kind.model_fields for variable in _names(kind, name)}
    for variable, value in sorted(environment.items()):
        name = variable.upper()
        if not name.startswith(prefixes) or name in known or _SERVICE_LINK.search(name) or is_service_link(value):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        raise InvalidSettings(f"unknown variable {variable}" + (f"; did you mean {near[0]}?" if near else ""))


def is_service_link(value: object) -> bool:
    """Whether a variable's value is Kubernetes' for ``<SERVICE>_PORT``, as in VITASCOPE_GATEWAY_PORT=tcp://10.0.0.1:80."""
    return isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))
