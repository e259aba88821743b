"""What wraps every request: its name, its size limit, and the net under it."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitascope_gateway.errors import INTERNAL, SHUTTING_DOWN, BodyTooLarge, answer_to
from vitascope_platform.telemetry import request_span

log = logging.getLogger(__name__)

_UPLOADS = frozenset({"/v1/videos/enhance", "/v1/images/enhance"})
"""Where files go to disk."""

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
    """Catches what nothing else did.

    A bug becomes a logged traceback and a plain 500 that gives nothing away; the end of the server's patience at
    shutdown becomes a 503.
    """

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
        except asyncio.CancelledError:
            # Only a server whose grace period is over cancels requests, and it would send a bare 500.
            if started:
                raise
            log.warning("request given up", extra={"path": scope["path"]})
            await SHUTTING_DOWN.response()(scope, receive, send)


class BodyLimit:
    """Refuses a body over the limit: at once if it says its length, else where it passes the limit.

    Args:
        app: What is behind it.
        limit: Bytes of a body, which may be held in memory.
        upload_limit: Bytes of a form with a file, where those go to disk.
    """

    def __init__(self, app: ASGIApp, limit: int, upload_limit: int) -> None:
        self._app = app
        self._limit = limit
        self._upload_limit = upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").strip().lower().startswith("multipart/form-data")
        limit = self._upload_limit if is_form and scope["path"] in _UPLOADS else self._limit
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > limit:
            return await answer_to(BodyTooLarge(limit), 1).response()(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise BodyTooLarge(limit)
            return message

        return await self._app(scope, counted, send)
