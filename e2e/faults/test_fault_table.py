"""The faults that every system of this kind meets, by their numbers in docs/reliability.md, on one cluster.

After each: one end, one result equal to the undisturbed one, and nothing else left.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
from aftermath import FRAMES, SHORT, cancelled, content, objects, result_tokens, until_idle, until_tidy
from clustering import INVERTED, INVERTER, inverter, metric
from serving import Gateway, decode

from tools.cluster.cluster import DENOISER, GATEWAY, UPLOADER, Cluster
from vitascope_core.job import EndState, new_token
from vitascope_core.plan import StageName
from vitascope_core.task import Task
from vitascope_frames.testcard import read_number
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.nats_connection import NatsSettings, nats_connected

FRAMES_MADE = 24
VIDEO = {"num_frames": FRAMES_MADE, "chunk_frames": 4, "num_inference_steps": 10, "seed": 3, **INVERTED}
READ_TIMEOUT_S = 2
STAGE = {DENOISER: "denoise", INVERTER: "upscale", UPLOADER: "upload"}


@dataclass(frozen=True)
class Scene:
    """A cluster, the file that it makes when nothing happens, and how long that takes."""

    cluster: Cluster
    undisturbed: bytes
    seconds: float

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])

    def is_intact(self, video: str) -> bool:
        """Whether the job completed as if nothing had happened, once nothing else of it is left."""
        done = self.gateway.until(video)
        until_tidy(self.cluster, [video])
        again = self.gateway.get(f"/v1/videos/{video}").json()
        assert done["status"] == "completed", done["error"]
        assert again == done
        assert len(result_tokens(self.cluster, video)) == 1
        return content(self.gateway, video) == self.undisturbed

    def until_busy(self, service: str) -> int:
        """Return which process of a service is the first to have work."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for index, process in enumerate(self.cluster.processes(service)):
                if metric(process, "vitascope_stage_tasks_in_flight", stage=STAGE[service]) > 0:
                    return index
        raise TimeoutError(f"no {service} has work")

    def until_all_idle(self) -> None:
        """Wait until no worker has work."""
        for service, stage in STAGE.items():
            until_idle(self.cluster, service, stage)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two gateways, and two processes of every stage, each slow enough to be met at work."""
    replicas = {GATEWAY: 2, DENOISER: 2, UPLOADER: 2}
    slow = {
        DENOISER: {"VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.1"},
        GATEWAY: {"VITASCOPE_GATEWAY_REAPER_EVERY_S": "1", "VITASCOPE_GATEWAY_REAPER_GRACE_S": "3"},
    }
    folder = tmp_path_factory.mktemp("cluster")
    env = {**SHORT, "VITASCOPE_S3_READ_TIMEOUT_S": str(READ_TIMEOUT_S)}
    with Cluster(
        folder, replicas=replicas, env=env, service_env=slow, extra={INVERTER: inverter(2, delay_s=0.3)}
    ) as cluster:
        gateway = Gateway(cluster.gateways[0])
        begun = time.monotonic()
        video = gateway.make(**VIDEO)
        assert gateway.until(video)["status"] == "completed"
        seconds, data = time.monotonic() - begun, content(gateway, video)
        assert [read_number(255 - frame) for frame in decode(data)] == list(range(FRAMES_MADE))
        yield Scene(cluster, data, seconds)


@pytest.mark.parametrize("service", [DENOISER, INVERTER, UPLOADER])
def test_02_a_worker_that_stands_still_and_wakes_up_again_changes_nothing(scene: Scene, service: str) -> None:
    video = scene.gateway.make(**VIDEO)
    sleeper = scene.until_busy(service)
    scene.cluster.pause(service, sleeper)
    try:
        done = scene.gateway.until(video)
    finally:
        scene.cluster.resume(service, sleeper)
    scene.until_all_idle()

    assert done["status"] == "completed"
    assert scene.is_intact(video)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("service", [DENOISER, INVERTER])
def test_03_a_broker_that_is_started_again_loses_nothing(scene: Scene, service: str, end: str) -> None:
    video = scene.gateway.make(**VIDEO)
    scene.until_busy(service)
    getattr(scene.cluster.nats, end)()
    scene.cluster.nats.start()
    scene.cluster.wait_ready()

    assert scene.is_intact(video)


@pytest.mark.parametrize("service", [DENOISER, INVERTER])
def test_04_a_broker_that_stalls_for_longer_than_the_ack_wait_loses_nothing(scene: Scene, service: str) -> None:
    video = scene.gateway.make(**VIDEO)
    scene.until_busy(service)
    scene.cluster.nats.pause()
    try:
        # The fault itself: tasks are handed out again while their workers go on.
        time.sleep(float(SHORT["VITASCOPE_WORKER_ACK_WAIT_S"]) + 2)
    finally:
        scene.cluster.nats.resume()

    assert scene.is_intact(video)


DAMAGES = ("gone", "cut short", "one bit changed")


def damage_object(cluster: Cluster, key: str, damage: str) -> None:
    """Do to an object of the frames store what a store should not."""
    store = cluster.s3.client()
    if damage == "gone":
        store.remove_object(FRAMES, key)
        return
    data = bytearray(store.get_object(FRAMES, key).read())
    if damage == "cut short":
        del data[-100:]
    else:
        data[-100] ^= 4
    store.put_object(FRAMES, key, io.BytesIO(data), len(data))


def until_objects(cluster: Cluster, prefix: str, count: int) -> None:
    """Wait until so many objects are there."""
    deadline = time.monotonic() + 60
    while len(objects(cluster, FRAMES, prefix)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("stage", "reader"), [("denoise", INVERTER), ("upscale", UPLOADER)], ids=["chunk", "segment"])
def test_09_a_job_whose_chunk_is_lost_fails_and_takes_no_other_with_it(scene: Scene, stage: str, reader: str) -> None:
    cluster = scene.cluster
    for index in range(2):
        cluster.pause(reader, index)
    try:
        videos = {damage: scene.gateway.make(**VIDEO) for damage in (*DAMAGES, "none")}
        for damage, video in videos.items():
            until_objects(cluster, f"jobs/{video}/1/{stage}/", FRAMES_MADE // 4)
            if damage != "none":
                damage_object(cluster, f"jobs/{video}/1/{stage}/0-2", damage)
    finally:
        for index in range(2):
            cluster.resume(reader, index)
    whole = videos.pop("none")
    ended = {damage: scene.gateway.until(video) for damage, video in videos.items()}
    until_tidy(cluster, videos.values())

    outcomes = {damage: (end["status"], (end["error"] or {}).get("code")) for damage, end in ended.items()}
    assert outcomes == dict.fromkeys(DAMAGES, ("failed", "input_lost"))
    assert [result_tokens(cluster, video) for video in videos.values()] == [set()] * len(DAMAGES)
    assert scene.is_intact(whole)


async def publish_again(cluster: Cluster, tasks: list[Task]) -> None:
    async with nats_connected(NatsSettings(url=cluster.nats.url), "test") as connection:
        bus = NatsBus(connection, ack_wait_s=0)
        for task in tasks:
            await bus.publish(task, message_id=f"again/{new_token()}")


async def until_stored(cluster: Cluster, video: str, count: int) -> None:
    """Wait until the first ``count`` chunks of the source are recorded: no task of theirs is there before that."""
    async with nats_connected(NatsSettings(url=cluster.nats.url), "test") as connection:
        jobs, deadline = JobStore(NatsKeyValue(connection, "jobs")), time.monotonic() + 60
        while len(await jobs.chunks(video, stage=StageName.DENOISE, attempt=1)) < count:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def test_10_tasks_that_are_published_twice_are_done_once(scene: Scene) -> None:
    video = scene.gateway.make(**VIDEO)
    asyncio.run(publish_again(scene.cluster, [Task(video, StageName.DENOISE, pool="main")]))
    asyncio.run(until_stored(scene.cluster, video, 2))
    chunks = [Task(video, StageName.UPSCALE, attempt=1, index=index) for index in (0, 0, 1)]
    asyncio.run(publish_again(scene.cluster, [*chunks, Task(video, StageName.UPLOAD, attempt=1)]))

    assert scene.is_intact(video)


def test_14_a_gateway_that_is_killed_while_jobs_come_in_leaves_none_unfinished(scene: Scene) -> None:
    url, killed = scene.cluster.gateways[1], threading.Event()
    fields = {"prompt": "a cat", "num_frames": 1, "num_inference_steps": 1}
    known = {video.id for video in scene.gateway.openai.videos.list(limit=100)}

    def submit(number: int) -> str | None:
        if number == 24:
            scene.cluster.kill(GATEWAY, 1)
            killed.set()
        try:
            answer = httpx.post(f"{url}/v1/videos", json=fields, timeout=30)
        except httpx.TransportError:
            assert killed.wait(10)
            return None
        return str(answer.json()["id"])

    with ThreadPoolExecutor(8) as threads:
        answered = {video for video in threads.map(submit, range(48)) if video}
    scene.cluster.restart(GATEWAY, 1)
    # Those whose clients heard nothing may be there too, and then they are jobs like all others.
    made = {video.id for video in Gateway(url).openai.videos.list(limit=100)} - known
    ended = {scene.gateway.until(video)["status"] for video in made}
    until_tidy(scene.cluster, made)

    assert answered
    assert answered <= made
    assert ended == {"completed"}


@pytest.mark.parametrize("service", [DENOISER, INVERTER])
def test_16_a_store_that_accepts_and_never_answers_is_waited_for(scene: Scene, service: str) -> None:
    video = scene.gateway.make(**VIDEO)
    scene.until_busy(service)
    # Its kernel goes on taking connections.
    scene.cluster.s3.pause()
    try:
        time.sleep(READ_TIMEOUT_S + 2)
    finally:
        scene.cluster.s3.resume()

    assert scene.is_intact(video)


PLACES = 8
"""Moments of a cancel, spread over the life of a job from its making to just behind its end."""


@pytest.mark.long  # test_zombies has the same boundaries, exactly
@pytest.mark.parametrize("place", range(PLACES))
def test_20_a_cancel_at_any_moment_and_completion_have_one_winner(scene: Scene, place: int) -> None:
    video = scene.gateway.make(**VIDEO)
    time.sleep(scene.seconds * place / (PLACES - 2))
    standing = asyncio.run(cancelled(scene.cluster, video))
    done = scene.gateway.until(video)
    scene.until_all_idle()
    until_tidy(scene.cluster, [video])

    won = standing.state is EndState.CANCELLED
    assert (done["status"], (done["error"] or {}).get("code")) == (
        ("failed", "cancelled") if won else ("completed", None)
    )
    assert len(result_tokens(scene.cluster, video)) == (0 if won else 1)
    assert won or content(scene.gateway, video) == scene.undisturbed


@pytest.mark.long
@pytest.mark.parametrize("place", range(0, PLACES, 3))
def test_20_a_deletion_at_any_moment_leaves_nothing(scene: Scene, place: int) -> None:
    video = scene.gateway.make(**VIDEO)
    time.sleep(scene.seconds * place / (PLACES - 2))
    assert httpx.delete(f"{scene.gateway.url}/v1/videos/{video}", timeout=60).status_code == 200
    scene.until_all_idle()
    until_tidy(scene.cluster, [video])

    assert scene.gateway.get(f"/v1/videos/{video}").status_code == 404
    assert result_tokens(scene.cluster, video) == set()
