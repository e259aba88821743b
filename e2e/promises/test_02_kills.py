"""Promise 2: no accepted job is lost. Here each service in turn dies between two of its writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aftermath import SHORT, content, result_tokens, until_tidy
from clustering import INVERTED, INVERTER, inverter
from serving import Gateway, decode

from tools.cluster.cluster import DENOISER, UPLOADER, Cluster
from vitascope_frames.testcard import read_number
from vitascope_platform.faults import FaultPoint

VIDEO = {"num_frames": 12, "chunk_frames": 4, "seed": 3, **INVERTED}


@dataclass(frozen=True)
class Scene:
    cluster: Cluster
    undisturbed: bytes

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One process of each service, and the file that it makes when nobody dies."""
    with Cluster(tmp_path_factory.mktemp("cluster"), env=SHORT, extra={INVERTER: inverter()}) as cluster:
        gateway = Gateway(cluster.gateways[0])
        video = gateway.make(**VIDEO)
        assert gateway.until(video)["status"] == "completed"
        data = content(gateway, video)
        assert [read_number(255 - frame) for frame in decode(data)] == list(range(12))
        yield Scene(cluster, data)


@pytest.mark.parametrize(
    ("service", "point", "attempts"),
    [
        (DENOISER, FaultPoint.BEFORE_RECORD, 2),
        (DENOISER, FaultPoint.BEFORE_PUBLISH, 2),
        (DENOISER, FaultPoint.AFTER_FIRST_CHUNK, 2),
        (DENOISER, FaultPoint.BEFORE_ACK, 1),
        (INVERTER, FaultPoint.BEFORE_RECORD, 1),
        (INVERTER, FaultPoint.BEFORE_PUBLISH, 1),
        (INVERTER, FaultPoint.BEFORE_ACK, 1),
        (UPLOADER, FaultPoint.BEFORE_END, 1),
        (UPLOADER, FaultPoint.BEFORE_CLEANUP, 1),
        (UPLOADER, FaultPoint.BEFORE_ACK, 1),
    ],
)
def test_01_a_worker_that_is_killed_between_two_writes_costs_no_job(
    scene: Scene, tmp_path: Path, service: str, point: FaultPoint, attempts: int
) -> None:
    cluster, gateway, marker = scene.cluster, scene.gateway, tmp_path / "died"
    deadly = {"VITASCOPE_FAULT_POINT": str(point), "VITASCOPE_FAULT_MARKER": str(marker)}
    cluster.kill(service)
    cluster.restart(service, extra=deadly)
    video = gateway.make(**VIDEO)
    code = cluster.process(service).wait_end(60)
    cluster.restart(service, extra=deadly)
    done = gateway.until(video)
    until_tidy(cluster, [video])

    assert (code, marker.exists()) == (-9, True)
    assert (done["status"], done["usage"]["attempts"]) == ("completed", attempts)
    assert content(gateway, video) == scene.undisturbed
    assert len(result_tokens(cluster, video)) == 1
