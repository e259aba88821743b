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

from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec
from vitascope_core.plan import StageName
from vitascope_core.task import Task
from vitascope_frames.testcard import testcard_card
from vitascope_gateway.app import create_app
from vitascope_gateway.board import Board
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.submission import Submission
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.cards import Cards
from vitascope_platform.clock import SystemClock
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.kv_sqlite import SqliteFile
from vitascope_platform.platform import Platform
from vitascope_platform.records import to_bytes
from vitascope_platform.store_memory import MemoryStore

WARM_UP, ROUNDS = 100, 1500
BODY = json.dumps({"prompt": "a cat", "seconds": "2"}).encode()


@contextlib.asynccontextmanager
async def bare(file: SqliteFile | None) -> AsyncIterator[FastAPI]:
    """A route that publishes one task and answers; with a file, the publish waits for the disk as a broker's does."""
    app, bus = FastAPI(), MemoryBus(SystemClock())
    bucket = file.bucket("tasks") if file else None

    @app.post("/v1/videos")
    async def create(body: dict[str, Any]) -> dict[str, Any]:
        task = Task(f"video_{time.time_ns()}", StageName.DENOISE, "testcard")
        if bucket is not None:
            await bucket.put(task.job_id, to_bytes(task))
        await bus.publish(task)
        return {"id": task.job_id, "prompt": body["prompt"]}

    yield app


@contextlib.asynccontextmanager
async def gateway(file: SqliteFile | None, known: int) -> AsyncIterator[FastAPI]:
    """The gateway without workers; jobs in memory, or in a database whose commits wait for the disk.

    Args:
        file: The database, or None.
        known: Unfinished jobs that there are already; their ids are ``video_`` and their number in 32 hex digits.
    """
    clock = SystemClock()
    bucket = file.bucket("jobs") if file else MemoryKeyValue()
    cards, store, jobs = Cards(MemoryKeyValue()), MemoryStore(), JobStore(bucket)
    await cards.put(testcard_card("testcard"))
    for number in range(known):
        await jobs.create_spec(_known(number))
    platform = Platform(MemoryBus(clock), jobs, cards, store, store, clock)
    async with Board.follow(jobs, cards) as board:
        await board.wait_ready(60)
        submission = Submission(board=board, platform=platform)
        yield create_app(
            board=board, submission=submission, results_store=store, settings=GatewaySettings(), clock=clock
        )


def _known(number: int) -> JobSpec:
    denoise = DenoiseSpec("a cat", 256, 256, 4, seeds=(number,), num_frames=33)
    name = f"video_{number:032x}"
    output = OutputSpec("mp4", 50)
    return JobSpec(name, JobKind.VIDEO, "testcard", "testcard", number, 2**52, denoise, (33,), output)


def _serve(kind: str, known: int, ready: Connection) -> None:
    async def run(app: FastAPI) -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        ready.send(server.servers[0].sockets[0].getsockname()[1])
        await serving

    async def main() -> None:
        with contextlib.ExitStack() as stack:
            file = None
            if kind.endswith("disk"):
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                file = stack.enter_context(SqliteFile(Path(folder) / "jobs.db"))
            async with bare(file) if kind.startswith("bare") else gateway(file, known) as app:
                await run(app)

    asyncio.run(main())


@contextlib.contextmanager
def served_app(kind: str, known: int = 0) -> Iterator[int]:
    """Serve an application in a process of its own and yield its port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(kind, known, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def served(kind: str) -> Iterator[Callable[[], float]]:
    """Start a server and yield a function that submits once and returns the seconds it took."""
    with served_app(kind) as port:
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


async def measure() -> list[str]:
    """Return the lines of the report."""
    kinds = ("bare", "gateway", "bare disk", "gateway disk")
    with contextlib.ExitStack() as stack:
        submits = {kind: stack.enter_context(served(kind)) for kind in kinds}
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(WARM_UP + ROUNDS):
            for kind, submit in submits.items():
                seconds = submit()
                if number >= WARM_UP:
                    times[kind].append(seconds)
    middle = {kind: statistics.median(values) for kind, values in times.items()}

    def line(what: str, kind: str) -> str:
        plain, ours = middle[f"bare{kind}"], middle[f"gateway{kind}"]
        figures = f"bare {plain * 1e3:.2f} ms, gateway {ours * 1e3:.2f} ms at p50"
        return f"{what:18} {figures}   ratio {ours / plain:.2f} (budget 2)"

    return [line("in memory", ""), line("committed to disk", " disk")]
