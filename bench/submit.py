"""A text-only submit against a bare FastAPI route that publishes once (DESIGN section 16: at most 2 times, at p50).

Both servers run in processes of their own and are asked in turn, over one kept-alive connection each.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tools.cluster.nats_server import nats_server
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec
from vitascope_core.plan import StageName
from vitascope_core.ports import Bus, KeyValue
from vitascope_core.task import Task
from vitascope_frames.testcard import testcard_card
from vitascope_gateway.app import create_app
from vitascope_gateway.board import Board
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.submission import Submission
from vitascope_platform.bootstrap_nats import Layout, bootstrap_nats
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.cards import Cards
from vitascope_platform.clock import SystemClock
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.kv_sqlite import SqliteFile
from vitascope_platform.nats_connection import NatsSettings, nats_connected
from vitascope_platform.platform import Platform
from vitascope_platform.records import to_bytes
from vitascope_platform.store_memory import MemoryStore

WARM_UP, ROUNDS = 100, 1500
BODY = json.dumps({"prompt": "a cat", "seconds": "2"}).encode()


@contextlib.asynccontextmanager
async def parts(medium: str) -> AsyncIterator[tuple[Bus, KeyValue]]:
    """Yield the bus and the jobs bucket of a medium.

    Args:
        medium: "memory"; "disk" for a database whose commits wait for the disk; or the URL of a NATS server.
    """
    clock = SystemClock()
    if medium == "memory":
        yield MemoryBus(clock), MemoryKeyValue()
    elif medium == "disk":
        with tempfile.TemporaryDirectory() as folder, SqliteFile(Path(folder) / "jobs.db") as file:
            yield MemoryBus(clock), file.bucket("jobs")
    else:
        async with nats_connected(NatsSettings(url=medium), "bench") as connection:
            yield NatsBus(connection), NatsKeyValue(connection, "jobs")


@contextlib.asynccontextmanager
async def bare(medium: str) -> AsyncIterator[FastAPI]:
    """A route that publishes one task, as lasting as the medium makes it, and answers."""
    app = FastAPI()
    async with parts(medium) as (bus, bucket):

        @app.post("/v1/videos")
        async def create(body: dict[str, Any]) -> dict[str, Any]:
            task = Task(f"video_{time.time_ns()}", StageName.DENOISE, "testcard")
            if medium == "disk":
                await bucket.put(f"task.{task.job_id}", to_bytes(task))  # what a broker does in publishing
            await bus.publish(task)
            return {"id": task.job_id, "prompt": body["prompt"]}

        yield app


@contextlib.asynccontextmanager
async def gateway(medium: str, known: int) -> AsyncIterator[FastAPI]:
    """The gateway without workers.

    Args:
        medium: See `parts`.
        known: Unfinished jobs that there are already; their ids are ``video_`` and their number in 32 hex digits.
    """
    clock, cards, store = SystemClock(), Cards(MemoryKeyValue()), MemoryStore()
    settings = GatewaySettings(max_queued=1_000_000)  # nobody works on them
    await cards.put(testcard_card("testcard"))
    async with parts(medium) as (bus, bucket):
        jobs = JobStore(bucket)
        for number in range(known):
            await jobs.create_spec(_known(number))
        platform = Platform(bus, jobs, cards, store, store, clock)
        async with Board.follow(jobs, cards) as board:
            await board.wait_ready(60)
            submission = Submission(board=board, platform=platform, max_queued=settings.max_queued)
            yield create_app(
                board=board,
                submission=submission,
                results_store=store,
                frames_store=store,
                settings=settings,
                clock=clock,
            )


def _known(number: int) -> JobSpec:
    denoise = DenoiseSpec("a cat", 256, 256, 4, seeds=(number,), num_frames=33)
    name = f"video_{number:032x}"
    output = OutputSpec("mp4", 50)
    return JobSpec(name, JobKind.VIDEO, "testcard", "testcard", number, 2**52, denoise, (33,), output)


def _serve(kind: str, medium: str, known: int, ready: Connection) -> None:
    async def main() -> None:
        async with bare(medium) if kind == "bare" else gateway(medium, known) as app:
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
            serving = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            ready.send(server.servers[0].sockets[0].getsockname()[1])
            await serving

    asyncio.run(main())


@contextlib.contextmanager
def served_app(kind: str, medium: str, known: int = 0) -> Iterator[int]:
    """Serve an application in a process of its own and yield its port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(kind, medium, known, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def served(kind: str, medium: str) -> Iterator[Callable[[], float]]:
    """Start a server and yield a function that submits once and returns the seconds it took."""
    with served_app(kind, medium) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def submit() -> float:
            begun = time.perf_counter()
            connection.request("POST", "/v1/videos", BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{kind}: HTTP {answer.status}")
            return time.perf_counter() - begun

        yield submit
        connection.close()


def _compared(name: str, medium: str) -> str:
    times: dict[str, list[float]] = {"bare": [], "gateway": []}
    with served("bare", medium) as plain, served("gateway", medium) as ours:
        for number in range(WARM_UP + ROUNDS):
            for kind, submit in (("bare", plain), ("gateway", ours)):
                seconds = submit()
                if number >= WARM_UP:
                    times[kind].append(seconds)
    middle = {kind: statistics.median(values) for kind, values in times.items()}
    figures = f"bare {middle['bare'] * 1e3:.2f} ms, gateway {middle['gateway'] * 1e3:.2f} ms at p50"
    return f"{name:18} {figures}   ratio {middle['gateway'] / middle['bare']:.2f} (budget 2)"


async def measure() -> list[str]:
    """Return the lines of the report."""
    lines = [_compared("in memory", "memory"), _compared("committed to disk", "disk")]
    with tempfile.TemporaryDirectory() as folder, nats_server(Path(folder)) as broker:
        async with nats_connected(NatsSettings(url=broker.url), "bench") as connection:
            await bootstrap_nats(connection, Layout(pools=("testcard",)))
        # In a thread: the servers are children, and this loop has nothing to do meanwhile.
        lines.append(await asyncio.to_thread(_compared, "NATS, synced", broker.url))
    return lines
