"""Frame interpolation from request to file: in one process, on a cluster, and when an interpolator dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from aftermath import SHORT, content, until_tidy
from clustering import tasks_done
from serving import Gateway, Server, decode

from bench.literal_rife import seeded_weights
from tools.cluster.cluster import INTERPOLATOR, Cluster
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_platform.faults import FaultPoint

VIDEO = {
    "size": "64x48",
    "num_frames": 10,
    "chunk_frames": 2,
    "fps": 8,
    "seed": 3,
    "enable_frame_interpolation": True,
    "frame_interpolation_exp": 1,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the public format."""
    folder = tmp_path_factory.mktemp("rife")
    torch.save(seeded_weights(RIFE_4_22_LITE.shapes(), seed=1), folder / "flownet.pkl")
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Cluster]:
    env = {"VITASCOPE_INTERPOLATOR_MODEL_PATH": str(weights), "OMP_NUM_THREADS": "1"}
    with Cluster(
        tmp_path_factory.mktemp("cluster"),
        env=SHORT,
        service_env={INTERPOLATOR: env},
        replicas={INTERPOLATOR: 2},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> bytes:
    """What one process makes of it."""
    flags = ("--model-path=testcard", "--enable-frame-interpolation", f"--frame-interpolation-model-path={weights}")
    with Server(tmp_path_factory.mktemp("state"), *flags, env={"OMP_NUM_THREADS": "1"}) as server:
        video = server.make(**VIDEO)
        done = server.until(video)
        assert (done["status"], done["num_frames"], done["fps"]) == ("completed", 19, 16)
        return content(server, video)


def test_one_process_and_a_cluster_make_the_same_frames(cluster: Cluster, undisturbed: bytes) -> None:
    gateway = Gateway(cluster.gateways[0])
    video = gateway.make(**VIDEO)
    done = gateway.until(video)
    frames = decode(content(gateway, video))

    assert (done["status"], len(frames)) == ("completed", 19)
    assert np.abs(np.stack(frames).astype(int) - np.stack(decode(undisturbed))).max() <= 1
    assert sum(tasks_done(process, "interpolate") for process in cluster.processes(INTERPOLATOR)) == 5


def test_an_interpolator_that_is_killed_costs_no_frame(cluster: Cluster, undisturbed: bytes, tmp_path: Path) -> None:
    gateway, marker = Gateway(cluster.gateways[0]), tmp_path / "died"
    deadly = {"VITASCOPE_FAULT_POINT": str(FaultPoint.BEFORE_RECORD), "VITASCOPE_FAULT_MARKER": str(marker)}
    for index in range(2):
        cluster.kill(INTERPOLATOR, index)
        cluster.restart(INTERPOLATOR, index, extra=deadly)
    video = gateway.make(**VIDEO)
    done = gateway.until(video)
    until_tidy(cluster, [video])

    assert sorted(process.alive for process in cluster.processes(INTERPOLATOR)) == [False, True]
    assert (done["status"], done["usage"]["attempts"]) == ("completed", 1)
    frames, expected = decode(content(gateway, video)), decode(undisturbed)
    assert np.abs(np.stack(frames).astype(int) - np.stack(expected)).max() <= 1
