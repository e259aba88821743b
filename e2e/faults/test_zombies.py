"""Faults 2 and 20 at their worst places: a worker stands still between two of its writes and then goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aftermath import SHORT, cancelled, content, result_tokens, until_idle, until_tidy
from clustering import INVERTED, INVERTER, inverter
from serving import Gateway

from tools.cluster.cluster import DENOISER, UPLOADER, Cluster
from tools.cluster.process import ServiceProcess
from vitascope_core.job import EndState
from vitascope_platform.faults import FaultAct, FaultPoint

VIDEO = {"num_frames": 12, "chunk_frames": 4, "seed": 3, **INVERTED}
STAGE = {DENOISER: "denoise", INVERTER: "upscale", UPLOADER: "upload"}


@dataclass(frozen=True)
class Scene:
    """Two processes of each stage, and the file that they make when nothing happens."""

    cluster: Cluster
    undisturbed: bytes

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])

    def stood_still(self, service: str, point: FaultPoint, marker: Path) -> tuple[str, ServiceProcess]:
        """Make a video; return it and the process of ``service`` that stands still at ``point``."""
        deadly = {
            "VITASCOPE_FAULT_POINT": point,
            "VITASCOPE_FAULT_MARKER": str(marker),
            "VITASCOPE_FAULT_ACT": FaultAct.STOP,
        }
        for index in range(2):
            self.cluster.kill(service, index)
            self.cluster.restart(service, index, extra=deadly, wait=False)
        self.cluster.wait_ready(service)
        video = self.gateway.make(**VIDEO)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in self.cluster.processes(service):
                if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
                    return video, process
            time.sleep(0.02)
        raise TimeoutError(f"no {service} came to {point}")

    def until_over(self, video: str, process: ServiceProcess) -> None:
        """Let the process go on and wait until nobody has anything to do."""
        os.kill(process.pid, signal.SIGCONT)
        for service, stage in STAGE.items():
            until_idle(self.cluster, service, stage)
        until_tidy(self.cluster, [video])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, replicas = tmp_path_factory.mktemp("cluster"), {DENOISER: 2, UPLOADER: 2}
    with Cluster(folder, replicas=replicas, env=SHORT, extra={INVERTER: inverter(2)}) as cluster:
        gateway = Gateway(cluster.gateways[0])
        video = gateway.make(**VIDEO)
        assert gateway.until(video)["status"] == "completed"
        yield Scene(cluster, content(gateway, video))


@pytest.mark.parametrize(
    ("service", "point"),
    [
        (DENOISER, FaultPoint.BEFORE_RECORD),
        (DENOISER, FaultPoint.BEFORE_ACK),
        (INVERTER, FaultPoint.BEFORE_RECORD),
        (UPLOADER, FaultPoint.BEFORE_END),
        (UPLOADER, FaultPoint.BEFORE_CLEANUP),
    ],
)
def test_02_a_zombie_between_two_writes_changes_nothing(
    scene: Scene, tmp_path: Path, service: str, point: FaultPoint
) -> None:
    video, zombie = scene.stood_still(service, point, tmp_path / "stopped")
    done = scene.gateway.until(video)
    tokens = result_tokens(scene.cluster, video)
    scene.until_over(video, zombie)

    assert done["status"] == "completed"
    assert scene.gateway.get(f"/v1/videos/{video}").json() == done
    assert content(scene.gateway, video) == scene.undisturbed
    assert len(result_tokens(scene.cluster, video) & tokens) == 1


@pytest.mark.parametrize(
    ("service", "point", "wins"),
    [
        (DENOISER, FaultPoint.BEFORE_RECORD, True),
        (DENOISER, FaultPoint.BEFORE_PUBLISH, True),
        (INVERTER, FaultPoint.BEFORE_RECORD, True),
        (INVERTER, FaultPoint.BEFORE_PUBLISH, True),
        (UPLOADER, FaultPoint.BEFORE_END, True),
        (UPLOADER, FaultPoint.BEFORE_CLEANUP, False),
    ],
)
def test_20_a_cancel_between_two_writes_has_one_winner(
    scene: Scene, tmp_path: Path, service: str, point: FaultPoint, wins: bool
) -> None:
    video, sleeper = scene.stood_still(service, point, tmp_path / "stopped")
    standing = asyncio.run(cancelled(scene.cluster, video))
    scene.until_over(video, sleeper)
    done = scene.gateway.until(video)

    assert (standing.state is EndState.CANCELLED) == wins
    assert done["status"] == ("failed" if wins else "completed")
    assert len(result_tokens(scene.cluster, video)) == (0 if wins else 1)
    assert wins or content(scene.gateway, video) == scene.undisturbed
