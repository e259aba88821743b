"""Faults of the network: 15, a machine whose workers reach the store and nobody else; 7, a store that is far away.

Workers that are cut off cannot know that others have taken over, and go on computing; what they can no longer do is to
make it count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from aftermath import SHORT, content, result_tokens, until_idle, until_tidy
from clustering import INVERTED, INVERTER, inverter, metric, tasks_done
from counting_proxy import Partition
from serving import Gateway, decode

from tools.cluster.cluster import DENOISER, UPLOADER, Cluster, Program
from vitascope_frames.testcard import read_number

FRAMES_MADE = 24
VIDEO = {"num_frames": FRAMES_MADE, "chunk_frames": 4, "num_inference_steps": 1, "seed": 3, **INVERTED}
STAGE = {DENOISER: "denoise", INVERTER: "upscale", UPLOADER: "upload"}
PACE = {"VITASCOPE_DENOISER_TESTCARD_CHUNK_S": "0.6"}
HERE = {"VITASCOPE_DENOISER_MODEL_PATH": "testcard", "VITASCOPE_DENOISER_POOL": "main"}


@dataclass(frozen=True)
class Scene:
    """One machine that can be cut off, with all three workers, and room for another.

    Attributes:
        link: From that machine to the broker.
        store_link: From that machine to the store.
    """

    cluster: Cluster
    link: Partition
    store_link: Partition

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])

    def scale_elsewhere(self, replicas: int) -> None:
        for service in STAGE:
            self.cluster.scale(f"{service}-elsewhere", replicas, wait=not replicas)
        for service in STAGE:
            self.cluster.wait_ready(f"{service}-elsewhere")

    def until_all_busy(self) -> None:
        deadline = time.monotonic() + 60
        for service, stage in STAGE.items():
            while metric(self.cluster.process(service), "vitascope_stage_tasks_in_flight", stage=stage) == 0:
                assert time.monotonic() < deadline
                time.sleep(0.02)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    elsewhere = {
        DENOISER: Program("vitascope_denoiser", 0, {**HERE, **PACE}),
        INVERTER: inverter(0, delay_s=0.3),
        UPLOADER: Program("vitascope_uploader", 0),
    }
    with (
        Partition(lambda: cluster.nats.url.removeprefix("nats://")) as link,
        Partition(lambda: cluster.s3.endpoint.removeprefix("http://")) as store_link,
    ):
        here = {
            "VITASCOPE_NATS_URL": f"nats://{link.address}",
            "VITASCOPE_S3_ENDPOINT": f"http://{store_link.address}",
        }
        cluster = Cluster(
            tmp_path_factory.mktemp("cluster"),
            env=SHORT,
            service_env={DENOISER: {**here, **PACE}, UPLOADER: here},
            extra={
                INVERTER: replace(inverter(delay_s=0.3), env={**inverter(delay_s=0.3).env, **here}),
                **{f"{service}-elsewhere": program for service, program in elsewhere.items()},
            },
        )
        with cluster:
            yield Scene(cluster, link, store_link)


def test_15_workers_that_are_cut_off_from_the_broker_change_nothing(scene: Scene) -> None:
    cluster, gateway = scene.cluster, scene.gateway
    video = gateway.make(**VIDEO)
    scene.until_all_busy()
    pids = [cluster.process(service).pid for service in STAGE]
    scene.link.cut()
    scene.scale_elsewhere(1)
    done = gateway.until(video)
    tokens = result_tokens(cluster, video)
    scene.link.heal()
    for service, stage in STAGE.items():
        until_idle(cluster, service, stage)
    until_tidy(cluster, [video])
    scene.scale_elsewhere(0)
    before = {service: tasks_done(cluster.process(service), stage) for service, stage in STAGE.items()}
    again = gateway.make(**VIDEO)
    after = gateway.until(again)

    assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
    assert gateway.get(f"/v1/videos/{video}").json() == done
    assert [read_number(255 - frame) for frame in decode(content(gateway, video))] == list(range(FRAMES_MADE))
    assert result_tokens(cluster, video) == tokens
    assert len(tokens) == 1
    # Those that were cut off are the ones that work now, in the processes that they were.
    assert after["status"] == "completed"
    assert content(gateway, again) == content(gateway, video)
    assert [cluster.process(service).pid for service in STAGE] == pids
    assert all(tasks_done(cluster.process(service), stage) > before[service] for service, stage in STAGE.items())


def test_07_a_store_that_is_slow_costs_time_and_nothing_else(scene: Scene) -> None:
    scene.store_link.delay_s = 0.02
    video = scene.gateway.make(**VIDEO)
    done = scene.gateway.until(video)
    scene.store_link.delay_s = 0.0
    until_tidy(scene.cluster, [video])

    assert (done["status"], done["usage"]["attempts"]) == ("completed", 1)
    assert [read_number(255 - frame) for frame in decode(content(scene.gateway, video))] == list(range(FRAMES_MADE))
    assert len(result_tokens(scene.cluster, video)) == 1
