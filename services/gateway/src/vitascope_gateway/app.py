"""The HTTP application."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from vitascope_core.ports import Clock, ObjectStore, ResultLinks
from vitascope_gateway import errors
from vitascope_gateway.board import Board
from vitascope_gateway.desk import Desk
from vitascope_gateway.health import HealthRoutes
from vitascope_gateway.images import ImageRoutes
from vitascope_gateway.middleware import BodyLimit, Net, RequestId, Traced
from vitascope_gateway.models import ModelRoutes
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.submission import Submission
from vitascope_gateway.videos import VideoRoutes

EXPOSED_HEADERS = ("x-request-id", "retry-after", "openai-poll-after-ms", "content-range", "accept-ranges")


def create_app(
    *,
    board: Board,
    submission: Submission,
    results_store: ObjectStore,
    frames_store: ObjectStore,
    settings: GatewaySettings,
    clock: Clock,
    links: ResultLinks | None = None,
) -> FastAPI:
    """Return the application; it starts and connects nothing.

    Files are streamed from ``results_store`` unless ``links`` knows where else clients find them; from
    ``frames_store`` come previews, and nothing else.
    """
    # A redirect for a trailing slash would turn https into http behind a proxy.
    app = FastAPI(title="Vitascope", version=version("vitascope-gateway"), redirect_slashes=False)
    desk = Desk(board, submission, results_store, settings, clock, frames_store, links)
    for routes in (VideoRoutes(desk), ImageRoutes(desk), ModelRoutes(desk), HealthRoutes(board)):
        app.include_router(routes.router())
    errors.install(app, settings.retry_after_s)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, upload_limit=settings.max_upload_bytes)
    app.add_middleware(Traced)
    app.add_middleware(Net)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(RequestId)
    return app
