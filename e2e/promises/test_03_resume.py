"""Promise 3: a killed denoiser resumes at its last checkpointed step, on any other worker of its pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aftermath import SHORT, content, objects, result_tokens, until_tidy
from clustering import metric
from serving import Gateway, numbers

from tools.cluster.cluster import DENOISER, Cluster
from vitascope_platform.faults import FaultPoint

STEPS, STEP_S = 8, 0.15
# Every step is a checkpoint: the time between two is shorter than a step.
RESUMABLE = {
    "VITASCOPE_DENOISER_TESTCARD_STEP_S": str(STEP_S),
    "VITASCOPE_DENOISER_CHECKPOINT_INTERVAL": "0.1",
    "VITASCOPE_WORKER_GRACE_S": "0.1",
}
IN_FLIGHT = "vitascope_stage_tasks_in_flight"
VIDEO = {"num_frames": 12, "chunk_frames": 4, "seed": 3, "num_inference_steps": STEPS}


@dataclass(frozen=True)
class Scene:
    cluster: Cluster
    undisturbed: bytes

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two denoisers, and the file that they make when nobody dies."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, env=SHORT, service_env={DENOISER: RESUMABLE}, replicas={DENOISER: 2}) as cluster:
        gateway = Gateway(cluster.gateways[0])
        video = gateway.make(**VIDEO)
        done = gateway.until(video)
        assert (done["status"], done["usage"]["repeated_steps"], done["usage"]["saved_seconds"]) == ("completed", 0, 0)
        data = content(gateway, video)
        assert numbers(data) == list(range(12))
        yield Scene(cluster, data)


def deadly(marker: Path, point: FaultPoint, visit: int) -> dict[str, str]:
    return {
        "VITASCOPE_FAULT_POINT": str(point),
        "VITASCOPE_FAULT_MARKER": str(marker),
        "VITASCOPE_FAULT_NTH": str(visit),
    }


def again(cluster: Cluster, index: int, variables: dict[str, str] | None = None) -> None:
    """Start a denoiser anew, with other variables."""
    cluster.kill(DENOISER, index)
    cluster.restart(DENOISER, index, extra=variables)


@pytest.mark.parametrize(
    ("point", "visit", "resumed"),
    [
        (FaultPoint.BEFORE_CHECKPOINT, 1, 0),
        (FaultPoint.AFTER_CHECKPOINT, 1, 1),
        (FaultPoint.BEFORE_CHECKPOINT, 5, 4),
        (FaultPoint.AFTER_CHECKPOINT, STEPS, STEPS),
    ],
    ids=["no checkpoint yet", "the first step", "between two", "the last step"],
)
def test_another_replica_goes_on_where_the_killed_one_was(
    scene: Scene, tmp_path: Path, point: FaultPoint, visit: int, resumed: int
) -> None:
    cluster, gateway, marker = scene.cluster, scene.gateway, tmp_path / "died"
    for index in range(2):
        again(cluster, index, deadly(marker, point, visit))
    video = gateway.make(**VIDEO)
    done = gateway.until(video)
    until_tidy(cluster, [video])
    usage = done["usage"]

    assert marker.exists()
    assert (done["status"], usage["attempts"]) == ("completed", 2)
    assert usage["saved_seconds"] == pytest.approx(STEP_S * resumed)
    assert content(gateway, video) == scene.undisturbed
    assert len(result_tokens(cluster, video)) == 1
    assert not any("checkpoint" in key for key in objects(cluster, "vitascope-frames", f"jobs/{video}/"))


def test_a_job_that_loses_two_workers_goes_on_each_time(scene: Scene, tmp_path: Path) -> None:
    cluster, gateway = scene.cluster, scene.gateway
    for index in range(2):
        again(cluster, index, deadly(tmp_path / str(index), FaultPoint.AFTER_CHECKPOINT, 3))
    video = gateway.make(**VIDEO)
    for index in range(2):
        assert cluster.process(DENOISER, index).wait_end(60) == -9
    cluster.restart(DENOISER, 0)
    done = gateway.until(video)
    cluster.restart(DENOISER, 1)

    assert (done["status"], done["usage"]["attempts"]) == ("completed", 3)
    assert done["usage"]["saved_seconds"] == pytest.approx(STEP_S * (3 + 6))
    assert content(gateway, video) == scene.undisturbed


def test_a_worker_that_is_told_to_end_hands_its_step_to_the_next(scene: Scene) -> None:
    cluster, gateway = scene.cluster, scene.gateway
    # Slow enough to be met in its steps.
    slow = {"VITASCOPE_DENOISER_CHECKPOINT_INTERVAL": "1000", "VITASCOPE_DENOISER_TESTCARD_STEP_S": "1"}
    for index in range(2):
        again(cluster, index, slow)
    video = gateway.make(**VIDEO)
    gateway.until_progress(video, 80 * 4 // STEPS)
    busy = next(i for i in range(2) if metric(cluster.process(DENOISER, i), IN_FLIGHT, stage="denoise") > 0)
    cluster.process(DENOISER, busy).ask_to_end()
    done = gateway.until(video)
    cluster.restart(DENOISER, busy)

    assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
    assert done["usage"]["saved_seconds"] >= 4
    assert content(gateway, video) == scene.undisturbed


def test_a_real_models_job_goes_on_bit_for_bit(tmp_path: Path) -> None:
    wanted = {"num_frames": 9, "num_inference_steps": 12, "seed": 3}
    often = {"VITASCOPE_DENOISER_CHECKPOINT_INTERVAL": "0.001", "OMP_NUM_THREADS": "1"}
    denoisers = {**often, **deadly(tmp_path / "died", FaultPoint.AFTER_CHECKPOINT, 1)}
    with Cluster(
        tmp_path / "cluster",
        model="vitascope/demo",
        env=SHORT,
        service_env={DENOISER: denoisers},
        replicas={DENOISER: 2},
    ) as cluster:
        gateway = Gateway(cluster.gateways[0])
        video = gateway.make(**wanted)
        done = gateway.until(video)
        until_tidy(cluster, [video])
        undisturbed = gateway.make(**wanted)  # on the one that is left

        assert gateway.until(undisturbed)["usage"]["attempts"] == 1
        assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
        assert done["usage"]["saved_seconds"] > 0
        assert content(gateway, video) == content(gateway, undisturbed)
