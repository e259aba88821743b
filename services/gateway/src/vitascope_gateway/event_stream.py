"""Server-sent events: an answer in pieces, each a named JSON object."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vitascope_core.errors import VitascopeError
from vitascope_gateway.errors import INTERNAL, answer_to

log = logging.getLogger(__name__)

Event = Mapping[str, Any]
"""An event's data; its name is the entry ``type``."""


class EventStream(Response):
    """A response that sends events as they come; None keeps the connection alive.

    An error ends the stream as an event of its own, named ``error``: the status has been sent by then. The iterator
    itself looks out for a client that leaves.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event | None, None], retry_after_s: int) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    data = b": waiting\n\n" if event is None else _event(str(event["type"]), event)
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except ClientDisconnect:
            return
        except VitascopeError as error:
            answer = answer_to(error, self._retry_after_s)
            if answer is INTERNAL:
                log.exception("stream raised")
            await send({"type": "http.response.body", "body": _event("error", answer.body), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _event(name: str, data: Event) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
