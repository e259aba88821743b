"""Where objects are kept: the settings of the two S3 locations, frames and results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9](?:[a-z0-9]|[.-](?![.-])){1,61}(?<![.-])")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/=@+-]*")


class Delivery(StrEnum):
    """How clients get at finished files."""

    GATEWAY = "gateway"
    """The gateway streams them."""
    PRESIGNED = "presigned"
    """The gateway redirects to a URL that is signed for a while."""
    PUBLIC = "public"
    """The gateway redirects to a URL that anybody may read for ever."""


@dataclass(frozen=True, slots=True)
class S3Location:
    """One bucket and how to reach it.

    Attributes:
        name: "frames" or "results": which settings an error speaks of.
        endpoint: URL without a path.
        access_key: "" for the usual places of AWS credentials: environment, file, instance or pod role.
        prefix: What stands before every key, "" or ending with a slash.
        path_style: Whether the bucket is in the URL's path rather than in its host; None: as the endpoint's host wants.
        connect_s: Longest wait for a connection, seconds.
        read_s: Longest silence while an answer is awaited, seconds.
    """

    name: str
    endpoint: str
    bucket: str
    region: str = "us-east-1"
    access_key: str = ""
    secret_key: SecretStr = field(default_factory=lambda: SecretStr(""))
    prefix: str = ""
    path_style: bool | None = None
    connect_s: float = 3.0
    read_s: float = 30.0

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.endpoint.startswith("https://")

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.endpoint).netloc


def _endpoint(value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    parts = urlsplit(url)
    try:
        port_is_sane = parts.port != 0
    except ValueError:
        port_is_sane = False
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or not port_is_sane:
        raise ValueError("must be host:port, or an http or https URL without path, user or query")
    return f"{parts.scheme}://{parts.netloc}"


def _public_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an http or https URL without user or query, like https://media.example.org/results")
    return value.rstrip("/")


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError(
            "must be 3 to 63 lower-case letters, digits, dots and hyphens, beginning and ending with a letter or digit"
        )
    return value


def _prefix(value: str) -> str:
    parts = value.strip("/").split("/")
    if parts == [""]:
        return ""
    if not _PREFIX.fullmatch(value) or any(part in ("", ".", "..") for part in parts):
        raise ValueError("must be names separated by single slashes, without . and .., like studio/renders")
    return "/".join(parts) + "/"


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


Endpoint = Annotated[str, AfterValidator(_endpoint)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Unset = BeforeValidator(_none_if_empty)


class SeedStorageSettings(BaseSettings):
    """The storage variables of the seeds, ``SGLANG_*``, understood as where results go."""

    model_config = SettingsConfigDict(env_prefix="SGLANG_", frozen=True, hide_input_in_errors=True)

    cloud_storage_type: str = ""
    s3_bucket_name: str = ""
    s3_endpoint_url: str = ""
    s3_region_name: str = ""
    s3_access_key_id: str = ""
    s3_secret_access_key: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _is_s3(self) -> Self:
        kind = self.cloud_storage_type
        if kind and kind.lower() != "s3":
            raise ValueError("SGLANG_CLOUD_STORAGE_TYPE must be s3: nothing else is supported")
        names = [f"SGLANG_{name.upper()}" for name in type(self).model_fields if name.startswith("s3_")]
        given = [name for name in names if self._value(name)]
        if given and not kind:
            raise ValueError(f"{given[0]} is set without SGLANG_CLOUD_STORAGE_TYPE=s3")
        if kind and not self.s3_bucket_name:
            raise ValueError("SGLANG_CLOUD_STORAGE_TYPE=s3 needs SGLANG_S3_BUCKET_NAME")
        return self

    def _value(self, variable: str) -> str:
        value = getattr(self, variable.removeprefix("SGLANG_").lower())
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    def as_results(self) -> dict[str, Any]:
        """Return what is set as fields of `S3Settings`."""
        if not self.cloud_storage_type:
            return {}
        # Without an endpoint the seeds mean Amazon's.
        amazon = f"https://s3.{self.s3_region_name or 'us-east-1'}.amazonaws.com"
        fields = {
            "results_bucket": self.s3_bucket_name,
            "results_endpoint": self.s3_endpoint_url or amazon,
            "results_region": self.s3_region_name,
            "results_access_key": self.s3_access_key_id,
            "results_secret_key": self.s3_secret_access_key.get_secret_value(),
        }
        return {name: value for name, value in fields.items() if value}


class _SeedSource(PydanticBaseSettingsSource):
    """The seeds' variables as the source of last resort."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return SeedStorageSettings().as_results().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        values = SeedStorageSettings().as_results()
        own = self.current_state
        # Half a pair of keys must not be completed with the other half of another pair.
        if own.get("results_access_key") or own.get("results_secret_key"):
            values = {name: value for name, value in values.items() if not name.endswith("_key")}
        return values


class S3Settings(BaseSettings):
    """Where frames and results are kept. Environment: ``VITASCOPE_S3_*``, for results also the seeds'."""

    model_config = SettingsConfigDict(
        env_prefix="VITASCOPE_S3_", frozen=True, extra="forbid", hide_input_in_errors=True, env_ignore_empty=True
    )

    endpoint: Endpoint = "http://127.0.0.1:8333"
    """Of the frames; host:port, or a URL whose scheme says whether it is encrypted."""
    region: str = Field(default="us-east-1", min_length=1)
    access_key: str = ""
    secret_key: SecretStr = SecretStr("")
    frames_bucket: Bucket = "vitascope-frames"
    path_style: Annotated[bool | None, Unset] = None
    """Whether buckets are in the path of URLs rather than in the host; not set: as the endpoint's host wants."""

    results_bucket: Bucket = "vitascope-results"
    results_endpoint: Endpoint | None = None
    """Of the results; not set: that of the frames. The same holds for its region and keys."""
    results_region: str | None = None
    results_access_key: str | None = None
    results_secret_key: SecretStr | None = None
    result_prefix: Prefix = ""
    """Put before the keys of results, so that one bucket serves several installations."""
    results_delivery: Delivery = Delivery.GATEWAY
    results_public_endpoint: Endpoint | None = None
    """The results' endpoint as clients reach it, for pre-signed URLs; not set: as the services reach it."""
    results_public_url: PublicUrl | None = None
    """What stands before the key in public URLs, for example https://cdn.example.org/renders."""
    presign_ttl_s: int = Field(default=3600, ge=1, le=7 * 24 * 3600)
    """How long pre-signed URLs are valid, seconds. S3 allows a week."""

    connect_timeout_s: float = Field(default=3.0, gt=0)
    read_timeout_s: float = Field(default=30.0, gt=0)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the seeds' variables behind Vitascope's own."""
        return init_settings, env_settings, dotenv_settings, file_secret_settings, _SeedSource(settings_cls)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key.get_secret_value()):
            raise ValueError("access_key and secret_key go together: set both or neither")
        if bool(self.results_access_key) != bool(
            self.results_secret_key and self.results_secret_key.get_secret_value()
        ):
            raise ValueError("results_access_key and results_secret_key go together: set both or neither")
        if self.results_delivery is Delivery.PUBLIC and self.results_public_url is None:
            raise ValueError("results_delivery=public needs results_public_url")
        if self.results_public_url is not None and self.results_delivery is not Delivery.PUBLIC:
            raise ValueError("results_public_url has an effect only with results_delivery=public")
        if self.results_public_endpoint is not None and self.results_delivery is not Delivery.PRESIGNED:
            raise ValueError("results_public_endpoint has an effect only with results_delivery=presigned")
        if self.results_bucket == self.frames_bucket and self.results_endpoint in (None, self.endpoint):
            # Frames expire by a rule of the bucket; results in it would go with them.
            raise ValueError("frames_bucket and results_bucket must be two buckets")
        return self

    @property
    def frames(self) -> S3Location:
        """Where intermediate objects are kept."""
        return self._location("frames", self.endpoint, self.frames_bucket)

    @property
    def results(self) -> S3Location:
        """Where finished files are kept."""
        return self._location("results", self.results_endpoint or self.endpoint, self.results_bucket)

    def _location(self, name: str, endpoint: str, bucket: str) -> S3Location:
        region, access, secret = self.region, self.access_key, self.secret_key
        if name == "results":
            region = self.results_region or region
            if self.results_access_key and self.results_secret_key:
                access, secret = self.results_access_key, self.results_secret_key
        return S3Location(
            name,
            endpoint,
            bucket,
            region,
            access,
            secret,
            self.result_prefix if name == "results" else "",
            self.path_style,
            self.connect_timeout_s,
            self.read_timeout_s,
        )
