"""The cluster's processes as Kubernetes would keep them: what ends is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tools.cluster.cluster import GATEWAY, Cluster
from tools.cluster.process import ServiceProcess
from tools.nemesis.cast import REPLICAS
from tools.nemesis.history import History

LOOK_S = 0.2
BACK_OFF_S = 0.5
"""Pause before a process that ended is started again."""
END_S = 25.0
"""How long a process that was asked to end may take before it is killed."""


class Crew:
    """Looks after the processes; whoever does something to one takes hold of it meanwhile.

    Attributes:
        gateway_peak_bytes: The most memory that a gateway was seen to hold.
    """

    def __init__(self, cluster: Cluster, history: History) -> None:
        self._cluster = cluster
        self._history = history
        self._held: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._scaling: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.gateway_peak_bytes = 0

    async def tend(self) -> None:
        """Start again what has ended, for ever; write down how it ended and how large gateways become."""
        async with asyncio.TaskGroup() as starting:
            while True:
                for process in self._cluster.processes():
                    if not process.alive and not self._held[process.name].locked():
                        await self._held[process.name].acquire()
                        starting.create_task(self._start_again(process))
                for process in self._cluster.processes(GATEWAY):
                    self._weigh(process)
                await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def held(self, service: str, place: int) -> AsyncIterator[ServiceProcess | None]:
        """Take hold of a process, so that it is not started meanwhile; None if the service has none now."""
        members = self._cluster.processes(service)
        if not members:
            yield None
            return
        process = members[place % len(members)]
        async with self._held[process.name]:
            yield process if process in self._cluster.processes(service) else None

    async def end(self, process: ServiceProcess) -> None:
        """Ask a process to end and wait for it."""
        process.ask_to_end()
        code = await asyncio.to_thread(process.wait, END_S)
        self._history.add("ended", process=process.name, code=code, why="told")

    async def kill(self, process: ServiceProcess) -> None:
        """Kill a process."""
        if process.alive:
            await asyncio.to_thread(process.kill)
            self._history.add("ended", process=process.name, code=process.exit_code, why="killed")

    async def scale(self, service: str, by: int) -> None:
        """Add a process to a service or take its last one away."""
        async with self._scaling[service]:
            members = self._cluster.processes(service)
            count = max(0, len(members) + by)
            if count >= len(members):
                self._cluster.scale(service, count, wait=False)
                return
            last = members[-1]
            async with self._held[last.name]:
                self._cluster.scale(service, count, wait=False)
                if last.alive:
                    await self.end(last)

    async def mend(self) -> None:
        """Bring every service back to its number of processes, all of them awake and ready."""
        wake_all(self._cluster)
        for service, count in REPLICAS.items():
            while (surplus := len(self._cluster.processes(service)) - count) != 0:
                await self.scale(service, -1 if surplus > 0 else 1)
        for service in REPLICAS:
            for place, process in enumerate(self._cluster.processes(service)):
                async with self.held(service, place):
                    process.start()
        await asyncio.to_thread(self._cluster.wait_ready)

    async def _start_again(self, process: ServiceProcess) -> None:
        try:
            tail = process.tail(5)
            self._history.add("ended", process=process.name, code=process.exit_code, why="itself", tail=tail)
            await asyncio.sleep(BACK_OFF_S)
            if process in self._cluster.processes():
                process.start()
        finally:
            self._held[process.name].release()

    def _weigh(self, process: ServiceProcess) -> None:
        status = Path(f"/proc/{process.pid}/status")
        with contextlib.suppress(OSError):
            if match := re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
                self.gateway_peak_bytes = max(self.gateway_peak_bytes, int(match[1]) * 1024)


def wake_all(cluster: Cluster) -> None:
    """Let every process of a cluster go on that stands still, for whatever reason."""
    for process in cluster.processes():
        process.resume()
        if process.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
