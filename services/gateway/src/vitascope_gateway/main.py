"""The gateway as a service: wiring only."""

from __future__ import annotations

import logging
import sys

from vitascope_gateway.app import create_app
from vitascope_gateway.board import Board
from vitascope_gateway.server import bound, serve_http
from vitascope_gateway.service_settings import GatewayServiceSettings
from vitascope_gateway.submission import PATIENCE_S, Submission
from vitascope_platform.links import result_links
from vitascope_platform.reaper import Reaper
from vitascope_platform.service import Service, all_of, run_service

log = logging.getLogger(__name__)


def main() -> None:
    """Run the gateway until SIGTERM."""
    sys.exit(run_service("gateway", GatewayServiceSettings, serve))


async def serve(service: Service, settings: GatewayServiceSettings) -> None:
    """Follow all jobs, answer requests, and do what no worker is left to do."""
    server = settings.server
    with bound(server.host, server.port) as listener:
        async with (
            service.connected(outage_s=PATIENCE_S) as connection,
            Board.follow(connection.platform.jobs, connection.platform.cards) as board,
            service.shown(connection),
        ):
            platform = connection.platform
            service.health.require_to_live(lambda: None if board.alive else "the board stopped following")
            service.health.require(lambda: None if board.ready else "the job records are not followed yet")
            app = create_app(
                board=board,
                submission=Submission(board=board, platform=platform, max_queued=settings.gateway.max_queued),
                results_store=platform.results,
                frames_store=platform.frames,
                settings=settings.gateway,
                clock=platform.clock,
                links=result_links(settings.s3),
            )
            reaper = Reaper(platform, grace_s=server.reaper_grace_s, every_s=server.reaper_every_s)

            def started() -> None:
                log.info("listening", extra={"gateway_port": listener.getsockname()[1]})
                service.ready()

            await all_of(serve_http(app, listener, service.stop, started, server.shutdown_s), reaper.run(service.stop))
