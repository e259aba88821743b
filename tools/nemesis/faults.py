"""Breaks what the schedule says, and mends it after a while."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
from collections import defaultdict
from pathlib import Path

from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from tools.cluster.cluster import Cluster
from tools.cluster.process import ServiceProcess
from tools.nemesis.cast import ACK_WAIT_S, BROKER, STORE
from tools.nemesis.crew import Crew
from tools.nemesis.history import History
from tools.nemesis.records import Records
from tools.nemesis.schedule import Fault, FaultKind
from vitascope_platform.faults import FaultAct

FRAMES = "vitascope-frames"

_CHUNK = re.compile(r"jobs/([^/]+)/\d+/[a-z]+/\d+-\d+")
_LOOK_S = 0.05


class Faults:
    """What can be done to a cluster and to its jobs.

    Args:
        folder: For the marks of the fault points.
    """

    def __init__(self, cluster: Cluster, crew: Crew, records: Records, history: History, folder: Path) -> None:
        self._cluster = cluster
        self._crew = crew
        self._records = records
        self._history = history
        self._folder = folder
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._marks: list[Path] = []
        self.now: dict[int, str] = {}

    async def run(self, faults: tuple[Fault, ...]) -> None:
        """Do all of it at its times; return when the last fault is mended."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(self._at_its_time(fault))

    def disarm(self) -> None:
        """Make sure that no fault point acts any more."""
        for mark in self._marks:
            mark.touch()

    async def _at_its_time(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s - self._history.now_s)
        begun, self.now[fault.number] = self._history.now_s, f"{fault.kind} {fault.target}".strip()
        try:
            what = await self._inject(fault)
        finally:
            del self.now[fault.number]
        self._history.add(
            "fault",
            number=fault.number,
            fault=str(fault.kind),
            target=fault.target,
            begun_s=round(begun, 3),
            ended_s=round(self._history.now_s, 3),
            **what,
        )

    async def _inject(self, fault: Fault) -> dict[str, object]:
        match fault.kind:
            case FaultKind.SCALE_UP | FaultKind.SCALE_DOWN:
                by = 1 if fault.kind is FaultKind.SCALE_UP else -1
                await self._crew.scale(fault.target, by)
                await asyncio.sleep(fault.lasts_s)
                await self._crew.scale(fault.target, -by)
                return {}
            case FaultKind.DUPLICATE:
                return await self._duplicate(fault)
            case FaultKind.ROB | FaultKind.SPOIL:
                return await self._harm_chunk(fault)
            case _ if fault.target in (BROKER, STORE):
                return await self._break_server(fault)
            case _:
                return await self._break_process(fault)

    async def _break_server(self, fault: Fault) -> dict[str, object]:
        server = self._cluster.nats if fault.target == BROKER else self._cluster.s3
        async with self._turns[fault.target]:
            if fault.kind is FaultKind.STALL:
                server.pause()
                await asyncio.sleep(fault.lasts_s)
                server.resume()
            else:
                await asyncio.to_thread(server.kill if fault.kind is FaultKind.KILL else server.stop)
                await asyncio.sleep(fault.lasts_s)
                await asyncio.to_thread(server.start)
        return {}

    async def _break_process(self, fault: Fault) -> dict[str, object]:
        async with self._crew.held(fault.target, fault.place) as process:
            if process is None or not process.alive:
                return {"missed": True}
            if fault.kind is FaultKind.FREEZE:
                process.pause()
                await asyncio.sleep(fault.lasts_s)
                process.resume()
                return {"process": process.name}
            if fault.kind is FaultKind.TERMINATE:
                await self._crew.end(process)
            else:
                await self._crew.kill(process)
            if fault.kind is not FaultKind.POINT:
                await asyncio.sleep(fault.lasts_s)
            mark = self._folder / f"mark-{fault.number}"
            process.start(self._armed(fault, mark) if fault.kind is FaultKind.POINT else None)
        if fault.kind is not FaultKind.POINT:
            return {"process": process.name}
        how = {"point": fault.point, "act": fault.act, "dies": fault.dies}
        return {"process": process.name, **how, **await self._reached(fault, mark, process)}

    def _armed(self, fault: Fault, mark: Path) -> dict[str, str]:
        self._marks.append(mark)
        return {
            "VITASCOPE_FAULT_POINT": fault.point,
            "VITASCOPE_FAULT_MARKER": str(mark),
            "VITASCOPE_FAULT_ACT": fault.act,
        }

    async def _reached(self, fault: Fault, mark: Path, process: ServiceProcess) -> dict[str, object]:
        """Wait until the point is reached; a process that stands still there dies then, or goes on as a zombie."""
        pid, until = process.pid, self._history.now_s + fault.lasts_s
        while not (reached := mark.exists()) and self._history.now_s < until:  # noqa: ASYNC110, ASYNC240 - a file
            await asyncio.sleep(_LOOK_S)
        # From now on it is an ordinary process.
        mark.touch()  # noqa: ASYNC240
        if reached and fault.act == FaultAct.STOP:
            await asyncio.sleep(ACK_WAIT_S + 1)
        if process.alive and process.pid == pid:
            os.kill(pid, signal.SIGKILL if reached and fault.dies else signal.SIGCONT)
        return {} if reached else {"missed": True}

    async def _duplicate(self, fault: Fault) -> dict[str, object]:
        running = self._records.running
        if not running:
            return {"missed": True}
        job = running[fault.place % len(running)]
        return {"job": job, "tasks": await self._records.publish_again(job)}

    async def _harm_chunk(self, fault: Fault) -> dict[str, object]:
        store, harm = self._cluster.s3.client(), _remove if fault.kind is FaultKind.ROB else _spoil
        try:
            keys = await asyncio.to_thread(_chunks, store)
        except (MinioException, HTTPError, OSError):
            keys = []
        if not keys:
            return {"missed": True}
        key = keys[fault.place % len(keys)]
        # If there is no answer, it may be done all the same.
        with contextlib.suppress(MinioException, HTTPError, OSError):
            await asyncio.to_thread(harm, store, key, fault.place)
        return {"job": key.split("/")[1], "key": key}


def _remove(store: Minio, key: str, place: int) -> None:
    del place
    store.remove_object(FRAMES, key)


def _spoil(store: Minio, key: str, place: int) -> None:
    """Change one bit."""
    answer = store.get_object(FRAMES, key)
    try:
        data = bytearray(answer.read())
    finally:
        answer.close()
        answer.release_conn()
    data[place % len(data)] ^= 1
    store.put_object(FRAMES, key, io.BytesIO(data), len(data))


def _chunks(store: Minio) -> list[str]:
    found = store.list_objects(FRAMES, prefix="jobs/", recursive=True)
    return sorted(name for info in found if _CHUNK.fullmatch(name := str(info.object_name)))
