"""What wraps every request: its name, its size limit, and the net under it."""

from __future__ import annotations

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitascope_gateway.errors import INTERNAL, BodyTooLarge, answer_to
from vitascope_platform.telemetry import request_span

log = logging.getLogger(__name__)

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """Gives every response an ``x-request-id``: the client's if it sent a decent one, else a fresh one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        said = Headers(scope=scope).get("x-request-id", "")
        request_id = said if _SAFE_ID.fullmatch(said) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        return await self._app(scope, receive, named)


class Traced:
    """Continues the trace that a request names in ``traceparent``, or begins one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        # Without ids, which would make every request a name of its own.
        name = " ".join([scope["method"], *scope["path"].split("/")[1:3]])[:80]
        with request_span(name, Headers(scope=scope)):
            await self._app(scope, receive, send)
        return None


class Net:
    """Catches what nothing else did: a bug becomes a logged traceback and a plain 500 that gives nothing away."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:  # the gateway's boundary
            if started:
                raise  # the server closes the connection, so that the client sees a cut answer for what it is
            fields = {"path": scope["path"], "request_id": scope["state"]["request_id"]}
            log.exception("request raised", extra=fields)
            await INTERNAL.response()(scope, receive, send)


class BodyLimit:
    """Refuses a body over the limit: at once if it says its length, else where it passes the limit."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limit:
            return await answer_to(BodyTooLarge(self._limit), 1).response()(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._limit:
                    raise BodyTooLarge(self._limit)
            return message

        return await self._app(scope, counted, send)
