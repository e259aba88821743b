"""Every service in a process of its own, over a real broker and a real store."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from serving import numbers

from tools.cluster.cluster import Cluster, Program, ServiceFailed, run_bootstrap
from tools.cluster.nats_server import nats_server
from tools.cluster.process import ServiceProcess

SLOW = Program(
    "vitascope_denoiser",
    env={
        "VITASCOPE_DENOISER_MODEL_PATH": "testcard",
        "VITASCOPE_DENOISER_POOL": "slow",
        "VITASCOPE_DENOISER_SERVED_MODEL_NAME": "slow",
        "VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.5",
        "VITASCOPE_WORKER_GRACE_S": "0",
    },
)
INVERTER = Program("inverter_service", env={"PYTHONPATH": str(Path(__file__).parent)})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    extra = {"slow": SLOW, "inverter": INVERTER}
    with Cluster(tmp_path_factory.mktemp("cluster"), replicas={"gateway": 2}, extra=extra, pools=["slow"]) as cluster:
        yield cluster


def until(what: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def make(url: str, **fields: object) -> str:
    answer = httpx.post(f"{url}/v1/videos", json={"prompt": "a cat", "model": "testcard", **fields}, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def status(url: str, video: str) -> str:
    return str(httpx.get(f"{url}/v1/videos/{video}", timeout=30).json()["status"])


def content(url: str, video: str) -> bytes:
    answer = httpx.get(f"{url}/v1/videos/{video}/content", timeout=30, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_job_given_to_one_gateway_is_answered_by_the_other(cluster: Cluster) -> None:
    one, other = cluster.gateways

    video = make(one)
    assert status(other, video) in ("queued", "in_progress", "completed")
    until(lambda: status(other, video) == "completed")

    assert numbers(content(other, video)) == list(range(33))


def test_a_transform_of_the_tests_runs_as_a_service(cluster: Cluster) -> None:
    url = cluster.gateways[0]

    video = make(url, enable_upscaling=True, upscaling_scale=1)
    until(lambda: status(url, video) in ("completed", "failed"))

    assert status(url, video) == "completed"


def test_a_service_that_is_told_to_end_hands_its_job_back(cluster: Cluster) -> None:
    url, denoiser = cluster.gateways[0], cluster.process("slow")
    video = make(url, model="slow")
    until(lambda: status(url, video) == "in_progress")

    denoiser.ask_to_end()

    assert denoiser.wait(10) == 0
    assert "reason=the worker shuts down" in denoiser.tail()
    cluster.restart("slow")
    until(lambda: status(url, video) == "completed")


def test_a_service_that_is_still_ending_is_started_once_it_has_ended(cluster: Cluster) -> None:
    uploader = cluster.process("uploader")
    before = uploader.pid
    uploader.ask_to_end()

    cluster.restart("uploader")

    assert uploader.pid != before


def test_services_are_not_ready_while_the_broker_is_away(cluster: Cluster) -> None:
    cluster.nats.kill()
    until(lambda: all(process.hindrance() is not None for process in cluster.processes()))
    answer = httpx.post(f"{cluster.gateways[0]}/v1/videos", json={"prompt": "a cat", "model": "testcard"}, timeout=30)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)

    cluster.nats.start()

    cluster.wait_ready()
    video = make(cluster.gateways[0])
    until(lambda: status(cluster.gateways[1], video) == "completed")


def test_replicas_come_and_go(cluster: Cluster) -> None:
    cluster.scale("uploader", 3)
    assert len({process.pid for process in cluster.processes("uploader")}) == 3

    surplus = cluster.processes("uploader")[1:]
    cluster.scale("uploader", 1)

    assert [process.exit_code for process in surplus] == [0, 0]


def test_what_is_not_there_yet_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    late = nats_server(tmp_path)
    env = {**cluster.env("uploader"), "VITASCOPE_NATS_URL": late.url}
    uploader = ServiceProcess("uploader", "vitascope_uploader", env)
    uploader.start()
    try:
        until(lambda: uploader.hindrance() == "waiting for the broker")
        with late:
            until(lambda: uploader.hindrance() == "waiting for the bootstrap")
            run_bootstrap(env, ["main"])
            uploader.wait_ready(30)
            assert sum("waiting" in line and "bucket jobs" in line for line in uploader.lines) <= 2
    finally:
        uploader.ask_to_end()
        assert uploader.wait(10) == 0


def test_a_service_that_still_waits_ends_when_it_is_told_to(cluster: Cluster, tmp_path: Path) -> None:
    env = {**cluster.env("denoiser"), "VITASCOPE_NATS_URL": nats_server(tmp_path).url}
    denoiser = ServiceProcess("denoiser", "vitascope_denoiser", env)
    denoiser.start()
    until(lambda: denoiser.hindrance() == "waiting for the broker")

    denoiser.ask_to_end()

    assert denoiser.wait(5) == 0
    assert "stopped" in denoiser.lines[-1]


def test_a_service_whose_work_hangs_ends_itself(cluster: Cluster) -> None:
    url = cluster.gateways[0]
    hanging = {"VITASCOPE_INVERTER_DELAY_S": "60", "VITASCOPE_WORKER_STALL_TIMEOUT_S": "1"}
    inverter = ServiceProcess("inverter", "inverter_service", {**cluster.env("inverter"), **hanging})
    cluster.scale("inverter", 0)
    inverter.start()
    inverter.wait_ready(30)

    video = make(url, enable_upscaling=True, upscaling_scale=1)
    until(lambda: not inverter.alive, 15)

    assert inverter.wait(5) == 1
    assert inverter.lines[-1].startswith("vitascope-inverter: error: a upscale task gave no sign of life")
    httpx.delete(f"{url}/v1/videos/{video}", timeout=30)


def test_a_missing_bucket_ends_the_service_with_exit_code_2(cluster: Cluster) -> None:
    env = {**cluster.env("uploader"), "VITASCOPE_S3_RESULTS_BUCKET": "no-such-bucket"}
    uploader = ServiceProcess("uploader", "vitascope_uploader", env)
    uploader.start()
    until(lambda: not uploader.alive)

    assert uploader.wait(5) == 2
    assert "no-such-bucket" in uploader.lines[-1]


def test_a_wrong_secret_ends_the_service_with_exit_code_2(cluster: Cluster) -> None:
    env = {**cluster.env("uploader"), "VITASCOPE_S3_SECRET_KEY": "wrong"}
    uploader = ServiceProcess("uploader", "vitascope_uploader", env)
    uploader.start()
    until(lambda: not uploader.alive)

    assert uploader.wait(5) == 2
    assert uploader.lines[-1].startswith("vitascope-uploader: error: ")


def test_a_cluster_whose_service_dies_at_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    broken = Cluster(tmp_path, service_env={"uploader": {"VITASCOPE_WORKER_CONCURRENCY": "0"}})

    with pytest.raises(ServiceFailed, match=r"uploader-0 ended with exit code 2:\n.*VITASCOPE_WORKER_CONCURRENCY"):
        broken.start()

    assert not any(process.alive for process in broken.processes())
    assert not is_listening(broken.nats.url)


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    env = {**os.environ, "PORT": "0", "MODEL": "testcard", "STATE": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tools.cluster"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            while not (lines and "curl -sfL" in lines[-1]):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            shown = "".join(lines)
            urls = re.findall(r"http://127\.0\.0\.1:\d+", shown[shown.index("Vitascope serves") :])
            video = make(urls[0])
            until(lambda: status(urls[0], video) == "completed")
        finally:
            # As a terminal does it: to every process of the foreground group.
            os.killpg(process.pid, signal.SIGINT)
            rest = process.stdout.read()

    assert process.returncode == 0, rest
    assert "Traceback" not in rest
    assert not any(is_listening(url) for url in urls)


def is_listening(url: str) -> bool:
    port = int(url.rpartition(":")[2])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
