"""Faults 2, 11 and 23: jobs that kill their processes, one that hangs, one that needs more memory than there is.

Each stage has one process, so that nobody survives; it is started again as Kubernetes would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aftermath import content, result_tokens, until_tidy
from clustering import INVERTED, INVERTER, kept_alive
from crashing_service import HANGING, HUNGRY, POISON
from serving import Gateway, decode

from tools.cluster.cluster import DENOISER, UPLOADER, Cluster, Program
from vitascope_core.plan import StageName
from vitascope_frames.testcard import read_number

VIDEO = {"num_frames": 4, "chunk_frames": 4, **INVERTED}
SERVICE = {StageName.DENOISE: DENOISER, StageName.UPSCALE: INVERTER, StageName.UPLOAD: UPLOADER}
DEATHS = {StageName.DENOISE: 3, StageName.UPSCALE: 4, StageName.UPLOAD: 4}
"""How many processes a job may cost, by the stage that it kills."""
SOON = {
    "VITASCOPE_WORKER_ACK_WAIT_S": "1.5",
    "VITASCOPE_WORKER_HEARTBEAT_S": "0.5",
    "VITASCOPE_WORKER_CHECK_S": "0.2",
    "VITASCOPE_WORKER_STALL_TIMEOUT_S": "3",
}


@dataclass(frozen=True)
class Scene:
    cluster: Cluster
    deaths: Path

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("cluster")
    deaths = folder / "deaths"
    paths = {"PYTHONPATH": str(Path(__file__).parents[1]), "VITASCOPE_CRASHING_DEATHS": str(deaths)}
    crashing = {
        service: Program("crashing_service", env={**paths, "VITASCOPE_CRASHING_STAGE": stage}, stage=stage)
        for stage, service in SERVICE.items()
    }
    with Cluster(folder, env=SOON, extra=crashing) as cluster:
        yield Scene(cluster, deaths)


def test_11_a_job_that_kills_its_workers_ends_and_takes_no_other_with_it(scene: Scene) -> None:
    cluster, gateway = scene.cluster, scene.gateway
    # All are there when the source starts: what it then takes at once would die together again and again.
    cluster.kill(DENOISER)
    before = [gateway.make(**VIDEO, seed=seed) for seed in (1, 2)]
    poison = {stage: gateway.make(**VIDEO, seed=seed) for stage, seed in POISON.items()}
    after = [gateway.make(**VIDEO, seed=seed) for seed in (3, 4)]
    with kept_alive(cluster, *SERVICE.values()):
        ended = {stage: gateway.until(video) for stage, video in poison.items()}
        others = [gateway.until(video) for video in before + after]
    cluster.wait_ready()
    until_tidy(cluster, [*before, *poison.values(), *after])

    assert {stage: (end["status"], (end["error"] or {}).get("code")) for stage, end in ended.items()} == dict.fromkeys(
        POISON, ("failed", "worker_crashed")
    )
    deaths = Counter(scene.deaths.read_text().split())
    assert {stage: deaths[stage] for stage in DEATHS} == DEATHS
    assert [other["status"] for other in others] == ["completed"] * 4
    for video in before + after:
        assert [read_number(255 - frame) for frame in decode(content(gateway, video))] == list(range(4))
        assert len(result_tokens(cluster, video)) == 1


def test_23_a_job_for_which_the_memory_never_suffices_ends_alone(scene: Scene) -> None:
    cluster, gateway = scene.cluster, scene.gateway
    with kept_alive(cluster, *SERVICE.values()):
        hungry = gateway.make(**VIDEO, seed=HUNGRY)
        others = [gateway.make(**VIDEO, seed=seed) for seed in (1, 2)]
        ended = gateway.until(hungry)
        made = [gateway.until(video) for video in others]
    cluster.wait_ready()
    until_tidy(cluster, [hungry, *others])

    assert (ended["status"], ended["error"]["code"]) == ("failed", "worker_crashed")
    assert "MemoryError" in ended["error"]["message"]
    assert [other["status"] for other in made] == ["completed"] * 2


def test_02_a_worker_whose_work_hangs_ends_itself_and_is_replaced(scene: Scene) -> None:
    cluster, gateway = scene.cluster, scene.gateway
    hanging = cluster.process(DENOISER).pid
    video = gateway.make(**VIDEO, seed=HANGING)
    code = cluster.process(DENOISER).wait_end(30)
    cluster.restart(DENOISER, wait=False)
    done = gateway.until(video)
    until_tidy(cluster, [video])

    assert (code, cluster.process(DENOISER).pid == hanging) == (1, False)
    assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
    assert [read_number(255 - frame) for frame in decode(content(gateway, video))] == list(range(4))
