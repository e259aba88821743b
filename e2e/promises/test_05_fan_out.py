"""Promise 5: a video is post-processed in parallel. Its chunks fan out over all replicas of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clustering import INVERTED, INVERTER, inverter, tasks_done
from serving import Gateway, decode

from tools.cluster.cluster import READY_S, Cluster
from vitascope_frames.testcard import read_number

ALONE = {"VITASCOPE_WORKER_CONCURRENCY": "1"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    extra = {INVERTER: inverter(replicas=1, delay_s=0.3, **ALONE)}
    with Cluster(tmp_path, extra=extra) as cluster:
        yield cluster


def inverted_numbers(data: bytes) -> list[int]:
    return [read_number(255 - frame) for frame in decode(data)]


def test_the_chunks_of_one_job_go_to_every_replica_and_come_back_in_order(cluster: Cluster) -> None:
    cluster.scale(INVERTER, 3)
    gateway = Gateway(cluster.gateways[0])
    made = gateway.until(gateway.make(num_frames=60, chunk_frames=5, **INVERTED))
    data = gateway.get(f"/v1/videos/{made['id']}/content").content

    shares = [tasks_done(process, "upscale") for process in cluster.processes(INVERTER)]
    assert sum(shares) == 12
    assert all(share >= 2 for share in shares), shares
    assert inverted_numbers(data) == list(range(60))


def test_replicas_that_are_added_in_the_middle_take_part(cluster: Cluster) -> None:
    gateway = Gateway(cluster.gateways[0])
    video = gateway.make(num_frames=100, chunk_frames=5, **INVERTED)
    gateway.until_progress(video, 81)
    # It waits for the others to have started: else it might be done by then.
    cluster.pause(INVERTER)
    cluster.scale(INVERTER, 3, wait=False)
    for process in cluster.processes(INVERTER)[1:]:
        process.wait_ready(READY_S)
    cluster.resume(INVERTER)
    made = gateway.until(video)
    data = gateway.get(f"/v1/videos/{made['id']}/content").content

    shares = [tasks_done(process, "upscale") for process in cluster.processes(INVERTER)]
    assert sum(shares) == 20
    assert all(shares), shares
    assert inverted_numbers(data) == list(range(100))


def test_a_replica_that_is_taken_away_in_the_middle_loses_nothing(cluster: Cluster) -> None:
    cluster.scale(INVERTER, 2)
    gateway = Gateway(cluster.gateways[0])
    video = gateway.make(num_frames=60, chunk_frames=5, **INVERTED)
    gateway.until_progress(video, 81)
    cluster.scale(INVERTER, 1)
    made = gateway.until(video)

    assert made["status"] == "completed"
    assert inverted_numbers(gateway.get(f"/v1/videos/{made['id']}/content").content) == list(range(60))
