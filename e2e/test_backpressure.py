"""A slow uploader or a full store stops the source, not the machine."""

from __future__ import annotations

import time
from pathlib import Path

from clustering import INVERTED, INVERTER, inverter, metric, peak_bytes, tasks_done
from serving import Gateway

from tools.cluster.cluster import Cluster
from tools.cluster.process import ServiceProcess
from tools.cluster.s3_server import S3Server

MEBIBYTE = 1024 * 1024
NARROW = {
    "VITASCOPE_WORKER_MAX_BACKLOG": "2",
    "VITASCOPE_WORKER_BACKLOG_PAUSE_S": "600",
    "VITASCOPE_WORKER_CHECK_S": "0.1",
}


def until_paused(process: ServiceProcess, stage: str, times: float = 1) -> None:
    """Wait until a stage has noticed that the stages behind it are full."""
    deadline = time.monotonic() + 60
    while metric(process, "vitascope_stage_backlog_pauses_total", stage=stage) < times:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_source_takes_no_more_jobs_than_the_uploader_can_follow(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas={"uploader": 0}, env=NARROW) as cluster:
        gateway, denoiser = Gateway(cluster.gateways[0]), cluster.process("denoiser")
        videos = [gateway.make(num_frames=2) for _ in range(12)]
        until_paused(denoiser, "denoise", times=20)
        taken = tasks_done(denoiser, "denoise")
        cluster.scale("uploader", 1)
        ended = [gateway.until(video)["status"] for video in videos]

    # Two wait for the uploader, and two more were in the denoiser's hands when that was seen.
    assert 2 <= taken <= 4
    assert ended == ["completed"] * 12


def test_a_source_decodes_no_further_than_a_slow_transform_can_follow(tmp_path: Path) -> None:
    with Cluster(tmp_path, env=NARROW, extra={INVERTER: inverter(0)}) as cluster:
        cluster.scale(INVERTER, 1)
        cluster.scale(INVERTER, 0)
        gateway, denoiser = Gateway(cluster.gateways[0]), cluster.process("denoiser")
        video = gateway.make(num_frames=40, chunk_frames=1, **INVERTED)
        until_paused(denoiser, "denoise")
        made = metric(denoiser, "vitascope_stage_chunks_total", stage="denoise")
        cluster.scale(INVERTER, 1)
        ended = gateway.until(video)["status"]

    # Two wait, and one more is made where the broker did not count the second yet.
    assert 2 <= made <= 3
    assert ended == "completed"


def test_a_full_store_stops_the_source_and_fails_no_job(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, env=NARROW)
    cluster.s3 = S3Server(tmp_path / "small", volumes=12, volume_mib=8)
    with cluster:
        gateway, denoiser = Gateway(cluster.gateways[0]), cluster.process("denoiser")
        small = gateway.until(gateway.make(num_frames=1))
        video = gateway.make(num_frames=300, size="640x480", chunk_frames=5)
        deadline = time.monotonic() + 100
        while "waiting for an outage to end" not in cluster.logs("denoiser"):
            assert time.monotonic() < deadline, gateway.get(f"/v1/videos/{video}").json()
            time.sleep(0.1)

        assert small["status"] == "completed"
        assert gateway.get(f"/v1/videos/{video}").json()["status"] == "in_progress"
        assert gateway.get("/livez").status_code == 200
        assert peak_bytes(denoiser) < 250 * MEBIBYTE
