"""What every service shares, from the first look at the environment to the exit code.

A service's ``main`` says what it is wired to and calls `run_service`, or `run_worker_service` if it works on a queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

from prometheus_client import REGISTRY

from vitascope_core.errors import InvalidSettings, Outage, Stalled, VitascopeError
from vitascope_core.handling import ChunkHandler, UploadHandler
from vitascope_core.task import ANY_POOL, Queue
from vitascope_platform.cards import Card, Cards, same_offer
from vitascope_platform.connection import Connection, connected, until_there
from vitascope_platform.environment import ServiceSettings, read_settings
from vitascope_platform.health import Health, HealthServer
from vitascope_platform.logs import log_to_stderr
from vitascope_platform.patience import Patience
from vitascope_platform.platform import Platform
from vitascope_platform.presence import Present, instance_name, show
from vitascope_platform.telemetry import announce_build, export_traces
from vitascope_platform.worker import Worker

log = logging.getLogger(__name__)

OK, FAILED, MISCONFIGURED = 0, 1, 2
"""Exit codes. A process that failed may be started again; one that is misconfigured needs a person."""

CARD_EVERY_S = 5.0
"""How often a worker looks whether its card still stands: a broker may have lost its volume, and until the card is back
its pool is offered to nobody."""

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Station:
    """What a worker service works at.

    Attributes:
        queue: Where its tasks wait.
        handler: What computes.
        card: What it can do, shown to the gateways; None for what reads and writes files, which needs none.
        concurrency: Deliveries held at once; None for as many as the settings say.
    """

    queue: Queue
    handler: ChunkHandler | UploadHandler
    card: Card | None = None
    concurrency: int | None = None


class Service:
    """A running service. Made by `run_service`.

    Attributes:
        stop: Set by SIGTERM and SIGINT.
        health: What the health port tells.
    """

    def __init__(self, name: str, settings: ServiceSettings) -> None:
        self.name = name
        self.stop = asyncio.Event()
        self.health = Health()
        self._settings = settings
        self._instance = instance_name()
        self._at_work = False
        self._first = ""

    @property
    def at_work(self) -> bool:
        """Whether there is work that must be ended in order; before, the service just ends."""
        return self._at_work

    def ready(self) -> None:
        """Say that the work begins."""
        self._at_work = True
        if not self.stop.is_set():
            self.health.now(None)
            log.info("ready", extra={"service": self.name})

    @asynccontextmanager
    async def connected(self, outage_s: float | None = None) -> AsyncIterator[Connection]:
        """Connect to broker and stores, waiting for those that are away; ready only while the broker is there.

        Args:
            outage_s: How long calls of the stores ride out an outage; None for as long as a worker's do.
        """
        async with connected(self.name, self._settings, outage_s=outage_s, tell=self.health.now) as connection:
            self.health.require(connection.hindrance)
            yield connection

    @asynccontextmanager
    async def shown(self, connection: Connection, queue: Queue | None = None) -> AsyncIterator[None]:
        """Show this process in the workers bucket inside the block."""

        def who() -> Present:
            stage, pool = (queue.stage.value, queue.pool) if queue else ("", "")
            busy = REGISTRY.get_sample_value("vitascope_stage_tasks_in_flight", {"stage": stage}) or 0
            pool = "" if pool == ANY_POOL else pool
            # A process that works at two queues shows itself at each.
            instance = self._instance if stage in ("", self._first) else f"{self._instance}-{stage}"
            return Present(self.name, instance, _version(), stage, pool, int(busy))

        async with beside(show(connection.workers, connection.platform.clock, who)):
            yield

    async def work(self, connection: Connection, *stations: Station) -> None:
        """Work at the stations until told to stop, then finish what fits the grace period and hand back the rest."""
        platform, clock = connection.platform, connection.platform.clock
        self.health.now("waiting for the queue")
        self._first = stations[0].queue.stage
        async with AsyncExitStack() as stack:
            for station in stations:
                queue = station.queue
                await until_there(f"queue {queue}", lambda queue=queue: platform.bus.depth(queue), clock)  # type: ignore[misc]
                await stack.enter_async_context(self.shown(connection, queue))
                await stack.enter_async_context(_card_shown(platform, station.card))
            self.ready()
            await all_of(*(self._worker(platform, station).run(self.stop) for station in stations))

    def _worker(self, platform: Platform, station: Station) -> Worker:
        settings = self._settings.worker
        if station.concurrency is not None:
            settings = settings.model_copy(update={"concurrency": station.concurrency})
        return Worker(station.queue, station.handler, platform, settings)


def run_worker_service(
    name: str, kind: type[S], wire: Callable[[S, Platform], AbstractAsyncContextManager[Station | Sequence[Station]]]
) -> int:
    """Run a service that works on a queue, and return its exit code.

    Args:
        name: Of the service, as in ``vitascope_<name>``.
        kind: Its settings.
        wire: Loads what computes and connects it to the stores; one station or several. Entered once the platform is
            there; left once no task is worked on any more.
    """

    async def serve(service: Service, settings: S) -> None:
        async with service.connected() as connection:
            service.health.now("loading")
            async with wire(settings, connection.platform) as stations:
                await service.work(connection, *([stations] if isinstance(stations, Station) else stations))

    return run_service(name, kind, serve)


def run_service(name: str, kind: type[S], serve: Callable[[Service, S], Awaitable[None]]) -> int:
    """Run a service until SIGTERM or SIGINT, and return its exit code.

    Settings come from the environment. What goes wrong is told in one line; a bug with its traceback.

    Args:
        name: Of the service, as in ``vitascope_<name>``.
        kind: Its settings.
        serve: Connects and works until ``service.stop``; cancelled if that comes before ``service.ready``.
    """
    try:
        settings = read_settings(kind)
        log_to_stderr(settings.log.level, settings.log.format)
        asyncio.run(_run(name, settings, serve))
    except InvalidSettings as error:
        _say(name, error)
        return MISCONFIGURED
    except VitascopeError as error:
        _say(name, error)
        return FAILED
    except Exception:
        log.critical("ended by an unexpected error", exc_info=True, extra={"service": name})
        return FAILED
    return OK


async def _run(name: str, settings: S, serve: Callable[[Service, S], Awaitable[None]]) -> None:
    announce_build()
    export_traces(f"vitascope-{name}", settings.traces.endpoint)
    service = Service(name, settings)
    _stop_on_signals(service)
    with HealthServer(service.health, settings.health.host, settings.health.port) as server:
        log.info("started", extra={"service": name, "version": _version(), "health_port": server.port})
        try:
            await _until_done(service, asyncio.ensure_future(serve(service, settings)))
        except Stalled as error:
            # The thread that hangs would keep everything that waits for it from ending, the interpreter included.
            _say(name, error)
            logging.shutdown()
            os._exit(FAILED)
    log.info("stopped", extra={"service": name})


async def _until_done(service: Service, serving: asyncio.Future[None]) -> None:
    stopping = asyncio.ensure_future(service.stop.wait())
    waits: list[asyncio.Future[Any]] = [serving, stopping]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not service.at_work:
            serving.cancel()  # A no-op if it has ended by itself.
        await serving
    except asyncio.CancelledError:
        if not service.stop.is_set():
            raise
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)


def _stop_on_signals(service: Service) -> None:
    """Stop at the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        log.info("stopping", extra={"service": service.name, "signal": number.name})
        service.health.now("draining")
        service.stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, told, each)


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` beside the block and cancel it with the block's end; the block can do without it."""
    task = asyncio.create_task(work)
    task.add_done_callback(_report)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("work in the background ended", exc_info=error)


async def all_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run until all have ended; the first error ends the others and is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _card_shown(platform: Platform, card: Card | None) -> AsyncIterator[None]:
    """Show what the service can do. The card stays when the service ends: its pool may be scaled up again."""
    if card is None:
        yield
        return
    await Patience(platform.clock)(lambda: publish_card(platform.cards, card))
    async with beside(_keep_card(platform, card)):
        yield


async def _keep_card(platform: Platform, card: Card) -> None:
    while True:
        await platform.clock.sleep(CARD_EVERY_S)
        try:
            if await platform.cards.standing(card) is None:
                log.warning("the card was gone", extra={"card": str(card)[:200]})
                await platform.cards.put(card)
        except Outage as error:
            log.debug("card not looked after", extra={"error": str(error)})


async def publish_card(cards: Cards, card: Card) -> None:
    """Show what a service can do, unless that is shown already."""
    standing = await cards.standing(card)
    if standing is not None and same_offer(standing, card):
        return
    if standing is not None:
        # Usual while a new version is rolled out; else the replicas of a pool do not agree on what they serve.
        log.warning("another card is replaced", extra={"was": str(standing), "now": str(card)})
    await cards.put(card)


def _version() -> str:
    return version("vitascope-platform")


def _say(name: str, error: Exception) -> None:
    print(f"vitascope-{name}: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)  # noqa: T201
