"""More requests than can be served: a clear refusal at the edge, and nothing grows behind it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from aftermath import until_tidy
from clustering import metric, peak_bytes
from serving import Gateway, numbers

from tools.cluster.cluster import GATEWAY, Cluster
from vitascope_core.plan import StageName
from vitascope_core.ports import Depth
from vitascope_core.task import Queue
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.nats_connection import NatsSettings, nats_connected

MEBIBYTE = 1024 * 1024
BOUND = 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One gateway with a short queue before one slow denoiser."""
    env = {
        "gateway": {"VITASCOPE_GATEWAY_MAX_QUEUED": str(BOUND)},
        "denoiser": {"VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.5"},
    }
    with Cluster(tmp_path / "state", service_env=env) as cluster:
        yield cluster


def flood(url: str, count: int) -> list[httpx.Response]:
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(16) as threads:
        fields = {"prompt": "a cat", "num_frames": 2, "num_inference_steps": 1}
        return list(threads.map(lambda _: client.post(f"{url}/v1/videos", json=fields), range(count)))


async def depth(cluster: Cluster) -> Depth:
    async with nats_connected(NatsSettings(url=cluster.nats.url), "test") as connection:
        return await NatsBus(connection, ack_wait_s=0).depth(Queue(StageName.DENOISE, "main"))


def bytes_under(folder: Path) -> int:
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # the broker replaces its files as it works
                total += (Path(inside) / name).stat().st_size
    return total


def test_a_flood_is_refused_at_the_edge_and_what_was_accepted_completes(cluster: Cluster, tmp_path: Path) -> None:
    gateway, process = Gateway(cluster.gateways[0]), cluster.process(GATEWAY)
    answers = flood(gateway.url, 300)
    queue = asyncio.run(depth(cluster))
    memory, disk = peak_bytes(process), bytes_under(tmp_path / "state" / "nats")
    answers += flood(gateway.url, 1700)
    grown = peak_bytes(process) - memory, bytes_under(tmp_path / "state" / "nats") - disk
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    ended = [gateway.until(video) for video in accepted]
    until_tidy(cluster, accepted)

    assert len(accepted) + len(refused) == 2000
    assert BOUND <= len(accepted) < 200
    assert queue.waiting + queue.in_flight <= BOUND
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert {answer.json()["error"]["code"] for answer in refused} == {"rate_limit_exceeded"}
    assert metric(process, "vitascope_jobs_refused_total", pool="main") == len(refused)
    assert {video["status"] for video in ended} == {"completed"}
    assert numbers(gateway.get(f"/v1/videos/{accepted[-1]}/content").content) == [0, 1]
    assert listed(gateway) == sorted(accepted, reverse=True)
    assert grown[0] < 8 * MEBIBYTE
    assert grown[1] < MEBIBYTE


def listed(gateway: Gateway) -> list[str]:
    return [video.id for video in gateway.openai.videos.list(limit=100)]
