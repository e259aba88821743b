"""Clusters for tests, and what is read off their processes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from serving import Gateway

from tools.cluster.cluster import Cluster, Program
from tools.cluster.process import ServiceProcess

INVERTER = "inverter"
INVERTED = {"enable_upscaling": True, "upscaling_scale": 1}
"""Request fields that send a job through the inverter."""


class ClusterGateway(Gateway):
    """The first gateway of a cluster, with a look into its store."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.gateways[0])
        self._cluster = cluster

    def files(self, store: str) -> list[str]:
        """Return the objects in a bucket: "frames" or "results"."""
        found = self._cluster.s3.client().list_objects(f"vitascope-{store}", recursive=True)
        return sorted(str(item.object_name) for item in found)


def inverter(replicas: int = 1, delay_s: float = 0.0, **env: str) -> Program:
    """Return the inverter as a service of a cluster."""
    paths = {"PYTHONPATH": str(Path(__file__).parent)}
    variables = {**paths, "VITASCOPE_INVERTER_DELAY_S": str(delay_s), **env}
    return Program("inverter_service", replicas, variables, stage="upscale")


def metric(process: ServiceProcess, name: str, **labels: str) -> float:
    """Return a sample of a process's metrics, 0 if it has none."""
    text = httpx.get(f"{process.health_url}/metrics", timeout=30).text
    for line in text.splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
            return float(match[2])
    return 0.0


def tasks_done(process: ServiceProcess, stage: str) -> int:
    """Return how many tasks of a stage a process has finished."""
    return int(metric(process, "vitascope_stage_tasks_total", stage=stage, outcome="done"))


def peak_bytes(process: ServiceProcess) -> int:
    """Return the most memory that a process has held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@contextmanager
def kept_alive(cluster: Cluster, *services: str) -> Iterator[None]:
    """Start processes of the services that end inside the block again, as Kubernetes would."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for service in services:
                for index, process in enumerate(cluster.processes(service)):
                    if not process.alive:
                        cluster.restart(service, index, wait=False)

    keeper = threading.Thread(target=look, name="keeper", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
