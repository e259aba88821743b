"""The distributed system as a whole: gateways, versions, outages, memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from clustering import INVERTED, INVERTER, inverter, peak_bytes, tasks_done
from serving import Gateway, numbers

from tools.cluster.cluster import Cluster, Program
from tools.cluster.process import ServiceFailed, ServiceProcess
from vitascope_core.plan import StageName
from vitascope_core.task import Task
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.nats_connection import NatsSettings, nats_connected

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two gateways, two denoisers, two uploaders and two inverters, shared by the module's tests."""
    replicas = {"gateway": 2, "denoiser": 2, "uploader": 2}
    slow = {"denoiser": {"VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.05"}}
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, replicas=replicas, service_env=slow, extra={INVERTER: inverter(2)}) as cluster:
        yield cluster


@pytest.fixture
def gateways(cluster: Cluster) -> list[Gateway]:
    return [Gateway(url) for url in cluster.gateways]


def test_gateways_answer_for_each_others_jobs(gateways: list[Gateway]) -> None:
    first, second = gateways
    video = first.make(num_frames=9)
    assert second.get(f"/v1/videos/{video}").status_code == 200
    done = second.until(video)

    assert first.until(video) == done
    assert second.get(f"/v1/videos/{video}/content").content == first.get(f"/v1/videos/{video}/content").content
    assert httpx.delete(f"{second.url}/v1/videos/{video}").status_code == 200
    assert first.until(first.make(num_frames=1))["status"] == "completed"
    assert first.get(f"/v1/videos/{video}").status_code == 404


def test_every_job_of_a_crowd_completes_once(gateways: list[Gateway]) -> None:
    made = [
        gateways[number % 2].make(num_frames=12, chunk_frames=4, seed=number, **(INVERTED if number % 3 else {}))
        for number in range(12)
    ]
    ended = [gateways[0].until(video) for video in made]

    assert [video["status"] for video in ended] == ["completed"] * 12
    assert [video["usage"]["attempts"] for video in ended] == [1] * 12


def test_pools_are_chosen_by_model(tmp_path: Path) -> None:
    env = {
        "VITASCOPE_DENOISER_MODEL_PATH": "testcard",
        "VITASCOPE_DENOISER_POOL": "second",
        "VITASCOPE_DENOISER_SERVED_MODEL_NAME": "second-model",
    }
    with Cluster(tmp_path, extra={"other": Program("vitascope_denoiser", env=env)}, pools=["second"]) as cluster:
        gateway = Gateway(cluster.gateways[0])
        refused = httpx.post(f"{gateway.url}/v1/videos", json={"prompt": "x"})
        ended = [gateway.until(gateway.make(model=model, num_frames=2)) for model in ("testcard", "second-model")]
        done = [tasks_done(cluster.process(service), "denoise") for service in ("denoiser", "other")]

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
    assert "second-model" in refused.json()["error"]["message"]
    assert [video["status"] for video in ended] == ["completed", "completed"]
    assert done == [1, 1]


async def test_a_task_of_a_newer_version_is_kept_for_a_newer_worker(cluster: Cluster, gateways: list[Gateway]) -> None:
    settings = NatsSettings(url=cluster.nats.url)
    newer = replace(Task("video_from_the_future", StageName.UPLOAD, attempt=1), schema_version=99)
    async with nats_connected(settings, "test") as connection:
        bus = NatsBus(connection, ack_wait_s=30)
        await bus.publish(newer)
        # The workers meet it while they go on with what they understand.
        made = [await asyncio.to_thread(gateways[0].make, num_frames=2) for _ in range(4)]
        ended = [await asyncio.to_thread(gateways[0].until, video) for video in made]
        kept = await bus.count("video_from_the_future")
        await bus.purge("video_from_the_future")

    assert ([video["status"] for video in ended], kept) == (["completed"] * 4, 1)


@pytest.mark.parametrize("server", ["nats", "s3"])
def test_a_job_outlives_an_outage(cluster: Cluster, gateways: list[Gateway], server: str) -> None:
    outage = getattr(cluster, server)
    video = gateways[0].make(num_frames=40, chunk_frames=2, num_inference_steps=20)
    gateways[0].until_progress(video, 20)
    outage.kill()
    outage.start()
    cluster.wait_ready()
    done = gateways[0].until(video)

    assert done["status"] == "completed"
    assert numbers(gateways[1].get(f"/v1/videos/{video}/content").content) == list(range(40))


def test_a_killed_denoiser_costs_an_attempt_and_no_job(tmp_path: Path) -> None:
    fast = {"VITASCOPE_WORKER_ACK_WAIT_S": "3", "VITASCOPE_WORKER_HEARTBEAT_S": "1", "VITASCOPE_WORKER_CHECK_S": "0.2"}
    slow = {"denoiser": {"VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.2"}}
    with Cluster(tmp_path, replicas={"denoiser": 2}, env=fast, service_env=slow) as cluster:
        gateway = Gateway(cluster.gateways[0])
        video = gateway.make(num_inference_steps=20, num_frames=12, chunk_frames=4)
        gateway.until_progress(video, 10)
        # Whichever holds the job: the other one takes it over.
        busy = next(i for i, process in enumerate(cluster.processes("denoiser")) if in_flight(process))
        cluster.kill("denoiser", busy)
        done = gateway.until(video)

        assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
        assert numbers(gateway.get(f"/v1/videos/{video}/content").content) == list(range(12))


def in_flight(process: ServiceProcess) -> bool:
    text = httpx.get(f"{process.health_url}/metrics").text
    return 'vitascope_stage_tasks_in_flight{stage="denoise"} 1.0' in text


def test_a_missing_bucket_is_refused_at_start(cluster: Cluster) -> None:
    env = {**cluster.env("uploader"), "VITASCOPE_S3_RESULTS_BUCKET": "no-such-bucket"}
    process = ServiceProcess("uploader-lost", "vitascope_uploader", env)
    process.start()
    with pytest.raises(ServiceFailed, match="no-such-bucket"):
        process.wait_ready(60)

    assert process.exit_code == 2


def test_wrong_credentials_are_refused_at_start(cluster: Cluster) -> None:
    env = {**cluster.env("uploader"), "VITASCOPE_S3_SECRET_KEY": "wrong-secret-key"}
    process = ServiceProcess("uploader-wrong", "vitascope_uploader", env)
    process.start()
    with pytest.raises(ServiceFailed) as caught:
        process.wait_ready(60)

    assert process.exit_code == 2
    assert "wrong-secret-key" not in str(caught.value)


def test_memory_is_flat_in_the_length_of_a_video(tmp_path: Path) -> None:
    size = {"size": "640x480", "chunk_frames": 5, **INVERTED}  # 4.6 MB of raw frames a chunk
    peaks = []
    with Cluster(tmp_path, extra={INVERTER: inverter(1)}) as cluster:
        gateway = Gateway(cluster.gateways[0])
        # The first is for warming up: two chunks at once, encoder threads, the allocator's pools.
        for chunks in (30, 10, 100):
            made = gateway.until(gateway.make(num_frames=chunks * 5, **size))
            assert made["status"] == "completed"
            peaks.append([peak_bytes(process) for process in cluster.processes()])
    grown = [long - short for short, long in zip(*peaks[1:], strict=True)]

    # Ninety chunks more are 400 MiB of raw frames. A quarter of that is room for what the allocator happens to keep for
    # the encoder's threads, which come and go with every segment.
    assert all(growth < 100 * MEBIBYTE for growth in grown), [round(growth / MEBIBYTE) for growth in grown]
