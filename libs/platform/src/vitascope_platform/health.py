"""The health and metrics port of a service: whether it lives, whether it can do its work, what it counts."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from http.server import HTTPServer
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import TYPE_CHECKING, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from vitascope_core.errors import VitascopeError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Check = Callable[[], str | None]
"""Says what is wrong, or None. Called from the threads of the health port."""


class PortTaken(VitascopeError):
    """A port that the service listens on is in use."""

    code = "port_taken"


class Health:
    """What a service knows of itself: it lives, and is ready once nothing speaks against it."""

    def __init__(self) -> None:
        self._busy_with: str | None = "starting"
        self._alive: list[Check] = []
        self._able: list[Check] = []

    def require(self, check: Check) -> None:
        """Be ready only while ``check`` finds nothing."""
        self._able.append(check)

    def require_to_live(self, check: Check) -> None:
        """Be alive only while ``check`` finds nothing; a process that is not must be started again."""
        self._alive.append(check)

    def now(self, doing: str | None) -> None:
        """Say what keeps the service from its work: "starting", "loading the model", "draining"; None at work."""
        self._busy_with = doing

    @property
    def illness(self) -> str | None:
        """Why the process must be started again, or None."""
        return _first(self._alive)

    @property
    def hindrance(self) -> str | None:
        """Why the service cannot do its work now, or None."""
        return self.illness or self._busy_with or _first(self._able)


class HealthServer:
    """Answers ``/livez``, ``/readyz``, ``/health`` and ``/metrics`` while it is open, from threads of its own.

    Compute and transfers cannot keep it from answering.
    """

    def __init__(self, health: Health, host: str, port: int) -> None:
        """Set where to listen; port 0 takes any free one, told by `port` once open."""
        self._health = health
        self._address = (host, port)
        self._metrics: WSGIApplication = make_wsgi_app()
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._address[1]

    def __enter__(self) -> Self:
        """Begin to answer.

        Raises:
            PortTaken: Another process listens there.
        """
        try:
            server = _Server(self._address, _Handler)
        except OSError as error:
            host, port = self._address
            raise PortTaken(f"cannot listen on {host} port {port} for health checks: {error.strerror}") from error
        server.set_app(self._answer)
        self._server = server
        self._address = (self._address[0], server.server_port)
        threading.Thread(target=server.serve_forever, args=(0.1,), name="health", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start)
        if path == "/livez":
            return _say(start, self._health.illness)
        if path in ("/readyz", "/health"):
            return _say(start, self._health.hindrance)
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/livez, /readyz, /health or /metrics\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Not the parent's: it asks DNS for the host's name, which may take long and is used for nothing.
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds that a client may be silent."""

    def log_message(self, *_: object) -> None:
        """Say nothing: probes come every few seconds."""


def _first(checks: Iterable[Check]) -> str | None:
    return next((found for check in checks if (found := check()) is not None), None)


def _say(start: StartResponse, wrong: str | None) -> Iterable[bytes]:
    body = {"status": "ok"} if wrong is None else {"status": "unhealthy", "error": wrong}
    start("200 OK" if wrong is None else "503 Service Unavailable", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
