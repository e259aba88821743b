"""``vitascope serve``: the OpenAI API over every stage in this process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator

from vitascope_cli.errors import OK, CommandFailed
from vitascope_cli.model import loaded
from vitascope_cli.node import Node, NodeSettings, running
from vitascope_cli.state_folder import default_folder, locked
from vitascope_core.card import Mode, ModelCard
from vitascope_denoiser.demo import example_prompt
from vitascope_gateway.app import create_app
from vitascope_gateway.server import bound, serve_http
from vitascope_platform.health import PortTaken

REQUESTS_END_S = 5.0
"""Time that requests under way get at shutdown."""


async def serve(options: argparse.Namespace, settings: NodeSettings) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code.

    Raises:
        CommandFailed: The port or the state folder is taken.
        VitascopeError: The model cannot be served, or a worker broke.
    """
    with locked(options.state_dir or default_folder()) as folder, _listening(options.host, options.port) as listener:
        stop = _stop_on_signals()
        print(f"Loading {options.model_path} …", file=sys.stderr, flush=True)
        async with loaded(options) as stages, running(folder, stages, settings) as node:
            await _serve_http(node, stages.card, listener, stop)
    return OK


async def _serve_http(node: Node, card: ModelCard, listener: socket.socket, stop: asyncio.Event) -> None:
    app = create_app(
        board=node.board,
        submission=node.submission,
        results_store=node.platform.results,
        frames_store=node.platform.frames,
        settings=node.settings.gateway,
        clock=node.platform.clock,
    )
    ending = asyncio.Event()
    serving = asyncio.create_task(
        serve_http(app, listener, ending, lambda: _print_banner(card, listener), REQUESTS_END_S)
    )
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(node.failure())
    try:
        await asyncio.wait([serving, stopping, failing], return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        ending.set()
        failing.cancel()
        stopping.cancel()
        await asyncio.gather(serving, stopping, failing, return_exceptions=True)
    serving.result()


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Take the port before the model is loaded: who finds it taken should not have waited for that."""
    try:
        with bound(host, port) as listener:
            yield listener
    except PortTaken as error:
        raise CommandFailed(f"{error}; choose another with --port") from error


def _stop_on_signals() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        print("Stopping; running jobs are kept. Once more to stop at once.", file=sys.stderr, flush=True)
        stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        del number

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, told, each)
    return stop


def _print_banner(card: ModelCard, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - only read: what to tell people when all addresses are meant
        host = "127.0.0.1"
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines, prompt = [f"Vitascope serves {card.id} on {url}"], example_prompt(card.id)
    if card.note:
        lines.append(f"  {card.note}")
    if Mode.TEXT_TO_VIDEO in card.modes:
        lines += [
            "",
            "Make a video (paste both lines):",
            f"""  id=$(curl -sS {url}/v1/videos -F prompt='{prompt}' | sed 's/.*"id": *"\\([^"]*\\)".*/\\1/')""",
            f"  curl -sf --retry 600 --retry-delay 1 --retry-all-errors -o video.mp4 {url}/v1/videos/$id/content",
        ]
    else:
        lines += [
            "",
            "Make an image:",
            f"  curl -sS {url}/v1/images/generations -H 'Content-Type: application/json' "
            f"""-d '{{"prompt": "{prompt}", "response_format": "url"}}'""",
        ]
    print("\n".join(lines), flush=True)
