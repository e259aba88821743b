"""Somebody at every gateway who looks at the list of videos again and again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx

from tools.cluster.cluster import GATEWAY, Cluster
from tools.cluster.process import ServiceProcess
from tools.nemesis.history import History

LOOK_S = 0.5
PAGE = 100

Seen = tuple[str, int, str]
"""Status, progress and error code of a video."""
ABSENT: Seen = ("absent", 0, "")


class Onlooker:
    """Writes down every change that a gateway shows, and what is no longer shown."""

    def __init__(self, cluster: Cluster, history: History) -> None:
        self._cluster = cluster
        self._history = history
        self._seen: dict[int, dict[str, Seen]] = {}

    async def run(self) -> None:
        """Look on for ever."""
        async with httpx.AsyncClient(timeout=10) as client:
            while True:
                await asyncio.gather(*(self._look(client, process) for process in self._cluster.processes(GATEWAY)))
                await asyncio.sleep(LOOK_S)

    async def _look(self, client: httpx.AsyncClient, process: ServiceProcess) -> None:
        if not process.alive or not process.url:
            return
        pid = process.pid
        with contextlib.suppress(httpx.TransportError):
            answer = await client.get(f"{process.url}/v1/videos", params={"limit": PAGE})
            # Another process may answer at this address now.
            if answer.status_code == 200 and process.alive and process.pid == pid:
                self._compare(process.name, pid, answer.json())

    def _compare(self, name: str, pid: int, page: dict[str, Any]) -> None:
        before = self._seen.setdefault(pid, {})
        shown: dict[str, Seen] = {
            video["id"]: (video["status"], video["progress"], (video["error"] or {}).get("code", ""))
            for video in page["data"]
        }
        oldest = min(shown, default="") if page["has_more"] else ""
        gone = {job: ABSENT for job, seen in before.items() if job not in shown and job >= oldest and seen != ABSENT}
        for job, seen in (shown | gone).items():
            if before.get(job) != seen:
                before[job] = seen
                status, progress, code = seen
                self._history.add("seen", job=job, gateway=f"{name}/{pid}", status=status, progress=progress, code=code)
