"""What clients are told when something goes wrong: the one place that knows HTTP status codes.

Every error has the form of OpenAI's, with ``detail`` beside it for clients of the seeds. The SDKs repeat 409, 429 and
everything from 500 up, so nothing that a repetition cannot mend may have such a status without ``x-should-retry``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from vitascope_core.errors import InvalidRequest, ModelNotFound, ObjectMissing, Outage, VitascopeError
from vitascope_gateway.bodies import BadBody

CLIENT_ERROR = "invalid_request_error"
RATE_ERROR = "rate_limit_error"
SERVER_ERROR = "server_error"
NO_RETRY = {"x-should-retry": "false"}

CLIENT_GONE = 499
"""Nobody hears it: what logs say when the client closed the connection."""


class NotFound(VitascopeError):
    """There is no such job or file, or not yet."""

    code = "not_found"
    status = 404


class BodyTooLarge(VitascopeError):
    """A body is over the limit."""

    code = "body_too_large"
    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body is larger than {limit} bytes")


class QueueFull(VitascopeError):
    """As many jobs wait for the model as may."""

    code = "rate_limit_exceeded"

    def __init__(self, length: int) -> None:
        super().__init__(f"{length} requests are waiting for this model already; nothing was accepted. Try again later")


class RangeNotSatisfiable(VitascopeError):
    """A range begins behind the end of the file."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes")
        self.size = size


class GenerationFailed(VitascopeError):
    """A job whose client waits for it has failed."""

    def __init__(self, job_code: str, message: str) -> None:
        super().__init__(message)
        self.job_code = job_code


class InputRefused(VitascopeError):
    """A job whose client waits for it cannot use what the client sent."""

    def __init__(self, job_code: str, message: str, field: str) -> None:
        super().__init__(message)
        self.job_code = job_code
        self.field = field


class WaitTooLong(VitascopeError):
    """A job whose client waits for it did not end in time, and was cancelled."""

    code = "timeout"
    status = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The request was not finished within {seconds:g} seconds and was cancelled")


class ResultUnavailable(VitascopeError):
    """A job whose client waits for it has completed, and its files cannot be read now."""

    code = "result_unavailable"
    status = 503

    def __init__(self, urls: Sequence[str]) -> None:
        super().__init__(f"The result is finished but cannot be read right now; fetch it later: {' '.join(urls)}")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """Everything that a client is told about an error."""

    status: int
    message: str
    type: str = CLIENT_ERROR
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error, "detail": self.message}

    def response(self) -> Response:
        """Return the answer as a response."""
        return JSONResponse(self.body, self.status, headers=dict(self.headers))


INTERNAL = ErrorAnswer(500, "The server had an error while processing the request", SERVER_ERROR)
SHUTTING_DOWN = ErrorAnswer(
    503,
    "The server is shutting down and did not finish the request",
    SERVER_ERROR,
    code=Outage.code,
    # Another replica can answer at once.
    headers={"retry-after": "1"},
)


def answer_to(error: VitascopeError, retry_after_s: int) -> ErrorAnswer:
    """Return what a client is told about an error that was raised on purpose."""
    text = str(error)
    match error:
        case InvalidRequest():
            return ErrorAnswer(400, text, param=error.field, code=error.code)
        case ModelNotFound():
            return ErrorAnswer(404, text, param="model", code=error.code)
        case BadBody():
            return ErrorAnswer(400, text)
        case NotFound() | BodyTooLarge():
            return ErrorAnswer(error.status, text)
        case ObjectMissing():
            return ErrorAnswer(404, "The file is no longer available")
        case QueueFull():
            return ErrorAnswer(429, text, RATE_ERROR, code=error.code, headers={"retry-after": str(retry_after_s)})
        case RangeNotSatisfiable():
            return ErrorAnswer(416, text, headers={"content-range": f"bytes */{error.size}"})
        case GenerationFailed():
            return ErrorAnswer(500, text, SERVER_ERROR, code=error.job_code, headers=NO_RETRY)
        case InputRefused():
            return ErrorAnswer(400, text, param=error.field, code=error.job_code)
        case WaitTooLong() | ResultUnavailable():
            # Asking again would make it again.
            return ErrorAnswer(error.status, text, SERVER_ERROR, code=error.code, headers=NO_RETRY)
        case Outage():
            message = "The service is temporarily unavailable; nothing was accepted"
            return ErrorAnswer(503, message, SERVER_ERROR, code=error.code, headers={"retry-after": str(retry_after_s)})
        case _:
            return INTERNAL


def install(app: FastAPI, retry_after_s: int) -> None:
    """Make the application answer every error in OpenAI's form."""

    def on_purpose(_: Request, error: Exception) -> Response:
        if not isinstance(error, VitascopeError):
            raise error
        answer = answer_to(error, retry_after_s)
        if answer is INTERNAL:
            raise error  # nobody expected it here: to the log, with its traceback
        return answer.response()

    app.add_exception_handler(VitascopeError, on_purpose)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_parameter)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    place = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        answer = ErrorAnswer(404, f"Unknown request URL: {place}", code="unknown_url")
    elif error.status_code == 405:
        answer = ErrorAnswer(405, f"Not allowed: {place}", code="method_not_allowed", headers=error.headers or {})
    else:
        answer = ErrorAnswer(error.status_code, str(error.detail), headers=error.headers or {})
    return answer.response()


def _on_parameter(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    code = "invalid_type" if str(first["type"]).endswith(("_parsing", "_type")) else "invalid_value"
    return ErrorAnswer(400, f"{param}: {first['msg']}", param=param, code=code).response()


def _on_disconnect(_: Request, error: Exception) -> Response:
    del error
    return Response(status_code=CLIENT_GONE)
