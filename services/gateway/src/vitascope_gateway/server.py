"""The HTTP server of a gateway, which ends when it is told to and not by signals of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from vitascope_platform.health import PortTaken

LAST_WORDS_S = 3.0
"""Time that requests have to end once they were cancelled, seconds."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # What a signal means is the service's to say.


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Take a port, before anything long is begun; connections are refused until `serve_http` listens.

    Raises:
        PortTaken: Another process has it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host} port {port}: {error.strerror}") from error
        yield listener


async def serve_http(
    app: FastAPI, listener: socket.socket, stop: asyncio.Event, started: Callable[[], None], shutdown_s: float
) -> None:
    """Answer requests until ``stop``, then give those under way ``shutdown_s`` seconds."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=max(1, round(shutdown_s)),
    )
    server = _Server(config)
    serving, stopping = asyncio.create_task(server.serve(sockets=[listener])), asyncio.create_task(stop.wait())
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        if not serving.done():
            started()
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await asyncio.gather(serving, stopping, return_exceptions=True)
        # uvicorn cancels the requests that outlast its patience and does not wait for what they do about it.
        if left := set(server.server_state.tasks):
            await asyncio.wait(left, timeout=LAST_WORDS_S)
    serving.result()
