"""Every error that Vitascope raises on purpose.

The kind of an error says what a worker does about it (see `vitascope_platform.worker`); the code says to a client what
happened. Neither HTTP status codes nor acknowledgements are known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class VitascopeError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        code: Stable name sent to clients. Part of the HTTP API, so never reworded.
    """

    code: ClassVar[str] = "internal_error"


class Outage(VitascopeError):
    """The store or the broker is away. Wait and go on; nobody's fault, never counted."""

    code = "service_unavailable"


class StoreUnavailable(Outage):
    """The object store did not answer, or answered with an error of its own."""


class BrokerUnavailable(Outage):
    """The bus or a key-value bucket did not answer; the outcome of the call is unknown."""


class DiskFull(Outage):
    """The worker's own disk has no room left. Another worker's may have some."""


class Retryable(VitascopeError):
    """Another delivery of the same task may succeed. Counted."""

    code = "worker_crashed"


class DeviceOutOfMemory(Retryable):
    """The accelerator had no memory left."""

    code = "out_of_memory"


class EngineCrashed(Retryable):
    """The child process that holds the model died while it worked."""


class Final(VitascopeError):
    """The job cannot succeed. It ends with this error's code."""

    code = "generation_failed"


class InvalidRequest(Final):
    """A request field is outside what the model or the stages support.

    Attributes:
        field: Name of the field as the client wrote it, dotted for nested ones.
        value: What it says.
        allowed: What it may say.
    """

    code = "invalid_value"
    value: object = None
    allowed = ""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} must be {allowed}, got {shown(value)}")
        self.field = field
        self.value = value
        self.allowed = allowed


class InvalidType(InvalidRequest):
    """A request field has the wrong JSON type."""

    code = "invalid_type"


class MissingField(InvalidRequest):
    """A required request field is absent."""

    code = "missing_required_parameter"

    def __init__(self, field: str) -> None:
        Final.__init__(self, f"{field} is required")
        self.field = field


class UnknownField(InvalidRequest):
    """A request field that no version of the API knows."""

    code = "unknown_parameter"

    def __init__(self, field: str, nearest: Sequence[str] = ()) -> None:
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        Final.__init__(self, f"Unknown parameter: {field}{hint}")
        self.field = field


class UnsupportedField(InvalidRequest):
    """A request field that the API knows but the model or the installation cannot honour."""

    code = "unsupported_parameter"

    def __init__(self, field: str, reason: str) -> None:
        Final.__init__(self, f"{field} is not supported: {reason}")
        self.field = field


class ModelNotFound(Final):
    """No pool serves the model that was asked for."""

    code = "model_not_found"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        served = ", ".join(known) if known else "none yet"
        super().__init__(f"The model {shown(model)} does not exist; served here: {served}")


class InvalidModel(Final):
    """A model folder cannot be served: it is damaged, or of a kind that is not supported."""

    code = "invalid_model"


class InvalidWeights(Final):
    """A checkpoint does not fit the network it is loaded into."""

    code = "invalid_weights"


class InputLost(Final):
    """A stored object that the job needs is gone or damaged."""

    code = "input_lost"


class UnsupportedMedia(Final):
    """A file is no video or picture, or one that cannot be read here."""

    code = "unsupported_media"


class DamagedMedia(Final):
    """A file is a video or a picture, but it breaks off, contradicts itself or holds nothing to see."""

    code = "damaged_media"


class MediaTooLarge(Final):
    """A file has more pixels, seconds, streams or bytes than are allowed."""

    code = "media_too_large"


class WorkerCrashed(Final):
    """A task of the job ended its worker again and again."""

    code = "worker_crashed"


class DeadlineExceeded(Final):
    """The job was not finished before its deadline."""

    code = "deadline_exceeded"


class Conflict(VitascopeError):
    """A create found the key present, or a compare-and-set found another revision."""

    code = "conflict"


class ObjectMissing(VitascopeError):
    """The object store has no object under this key."""

    code = "object_missing"


class Stopped(VitascopeError):
    """The work was told to stop: the job ended, was superseded, or the process shuts down."""

    code = "cancelled"


class Stalled(VitascopeError):
    """A task gave no sign of life for longer than the stall timeout; the process must end."""

    code = "worker_stalled"


class InvalidSettings(VitascopeError):
    """A setting or command-line option is wrong; the process does not start."""

    code = "invalid_settings"


def shown(value: object, limit: int = 80) -> str:
    """Return ``repr(value)``, cut to ``limit`` characters so that an error never repeats a whole upload."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
