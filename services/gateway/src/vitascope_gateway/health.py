"""Whether the gateway lives and can do its work."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from vitascope_gateway.board import Board


class HealthRoutes:
    """The handlers of ``/livez``, ``/readyz`` and the seeds' ``/health``."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(tags=["health"])
        router.add_api_route("/livez", self.live, methods=["GET"])
        router.add_api_route("/readyz", self.ready, methods=["GET"])
        router.add_api_route("/health", self.ready, methods=["GET"])
        return router

    async def live(self) -> Response:
        """Say whether the process works; one that does not must be started again."""
        return _answer(None if self._board.alive else "the board stopped following")

    async def ready(self) -> Response:
        """Say whether requests can be served; not so while the broker is away."""
        return _answer(None if self._board.ready else "the job records are not followed yet")


def _answer(error: str | None) -> Response:
    if error is None:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": "unhealthy", "error": error}, 503)
