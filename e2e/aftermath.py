"""What must hold after every fault, once the faults are over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from clustering import metric
from serving import Api

from tools.cluster.cluster import Cluster
from vitascope_core.job import EndState, JobEnd, new_token
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.nats_connection import NatsSettings, nats_connected

FRAMES, RESULTS = "vitascope-frames", "vitascope-results"

SHORT = {
    "VITASCOPE_WORKER_ACK_WAIT_S": "3",
    "VITASCOPE_WORKER_HEARTBEAT_S": "1",
    "VITASCOPE_WORKER_CHECK_S": "0.2",
}
"""Waits of a cluster whose workers are to be given up soon."""


def objects(cluster: Cluster, bucket: str, prefix: str = "") -> set[str]:
    """Return the keys in a bucket."""
    found = cluster.s3.client().list_objects(bucket, prefix=prefix, recursive=True)
    return {info.object_name for info in found if info.object_name is not None}


def result_tokens(cluster: Cluster, job: str) -> set[str]:
    """Return under which tokens a job has files."""
    return {key.split("/")[1] for key in objects(cluster, RESULTS, f"{job}/")}


async def queued(cluster: Cluster) -> set[str]:
    """Return the jobs that have messages."""
    async with nats_connected(NatsSettings(url=cluster.nats.url), "test") as connection:
        return await NatsBus(connection, ack_wait_s=0).jobs()


def until_tidy(cluster: Cluster, jobs: Iterable[str], timeout_s: float = 60.0) -> None:
    """Wait until nothing is left of ended jobs but their results: no object, no message, no file of a loser."""
    wanted, deadline = set(jobs), time.monotonic() + timeout_s
    while True:
        left = {
            "objects": {key for key in objects(cluster, FRAMES, "jobs/") if key.split("/")[1] in wanted},
            "messages": asyncio.run(queued(cluster)) & wanted,
            "losers": {job for job in wanted if len(result_tokens(cluster, job)) > 1},
        }
        if not any(left.values()):
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def until_idle(cluster: Cluster, service: str, stage: str, timeout_s: float = 60.0) -> None:
    """Wait until no process of a service has work."""
    deadline = time.monotonic() + timeout_s
    for process in cluster.processes(service):
        while metric(process, "vitascope_stage_tasks_in_flight", stage=stage) > 0:
            assert time.monotonic() < deadline, process.tail()
            time.sleep(0.05)


async def cancelled(cluster: Cluster, video: str) -> JobEnd:
    """Cancel a job as a gateway does and return the end that stands."""
    async with nats_connected(NatsSettings(url=cluster.nats.url), "test") as connection:
        end = JobEnd(EndState.CANCELLED, new_token(), time.time_ns() // 1_000_000, "cancelled")
        standing = await JobStore(NatsKeyValue(connection, "jobs")).create_end(video, end)
        await NatsBus(connection, ack_wait_s=0).purge(video)
        return standing


def content(api: Api, video: str) -> bytes:
    """Return the finished file."""
    answer = api.get(f"/v1/videos/{video}/content")
    assert answer.status_code == 200, answer.text
    return answer.content
