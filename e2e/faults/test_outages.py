"""Faults 5, 6 and 13: the broker is away, has lost its volume, and an uploader's disk is full."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cramped_uploader
import httpx
import pytest
from aftermath import FRAMES, SHORT, content, objects, result_tokens, until_tidy
from clustering import INVERTED, INVERTER, inverter
from serving import Gateway, decode

from tools.cluster.cluster import DENOISER, GATEWAY, UPLOADER, Cluster, Program
from vitascope_frames.testcard import read_number

FRAMES_MADE = 24
VIDEO = {"num_frames": FRAMES_MADE, "chunk_frames": 4, "num_inference_steps": 6, "seed": 3, **INVERTED}
CRAMPED = "cramped"
QUICK = {
    **SHORT,
    "VITASCOPE_WORKER_OUTAGE_S": "4",
    "VITASCOPE_NATS_REQUEST_TIMEOUT_S": "1",
    "VITASCOPE_GATEWAY_REAPER_EVERY_S": "0.5",
    "VITASCOPE_GATEWAY_REAPER_GRACE_S": "3",
}


def until(what: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until ``what`` returns something."""
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass(frozen=True)
class Scene:
    """A cluster, and a job that it finished when nothing happened.

    Attributes:
        temporary: Where the cramped uploader writes.
    """

    cluster: Cluster
    temporary: Path
    finished: str
    undisturbed: bytes = field(repr=False)

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.cluster.gateways[0])

    def begin(self) -> str:
        """Make a video and return it once its source is at work."""
        video = self.gateway.make(**VIDEO)
        # A task in hand is not enough: its attempt may not have begun yet.
        self.gateway.until_progress(video, 1)
        return video

    def told(self, service: str, words: str) -> int:
        """Return how often a service has logged something."""
        return self.cluster.logs(service).count(words)

    def is_intact(self, video: str) -> bool:
        """Whether the job completed as if nothing had happened."""
        until_tidy(self.cluster, [video])
        return content(self.gateway, video) == self.undisturbed and len(result_tokens(self.cluster, video)) == 1


def served(folder: Path, env: dict[str, str]) -> Iterator[Scene]:
    temporary = folder / "temporary"
    temporary.mkdir()
    cramped = {
        "PYTHONPATH": str(Path(cramped_uploader.__file__).parent),
        "TMPDIR": str(temporary),
        "VITASCOPE_CRAMPED_KIB": "512",
        "VITASCOPE_WORKER_CONCURRENCY": "1",
    }
    cluster = Cluster(
        folder,
        replicas={GATEWAY: 2},
        env=env,
        service_env={DENOISER: {"VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.4"}},
        extra={INVERTER: inverter(delay_s=0.3), CRAMPED: Program("cramped_uploader", 0, cramped)},
    )
    with cluster:
        gateway = Gateway(cluster.gateways[0])
        video = gateway.make(**VIDEO)
        assert gateway.until(video)["status"] == "completed"
        data = content(gateway, video)
        assert [read_number(255 - frame) for frame in decode(data)] == list(range(FRAMES_MADE))
        yield Scene(cluster, temporary, video, data)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from served(tmp_path_factory.mktemp("cluster"), QUICK)


def test_05_without_a_broker_nothing_is_accepted_and_what_is_known_is_told(scene: Scene) -> None:
    cluster, given_up = scene.cluster, scene.told(DENOISER, "outage outlasted patience")
    video = scene.begin()
    cluster.nats.kill()
    until(lambda: all(process.hindrance() for process in cluster.processes()))
    refused = httpx.post(f"{scene.gateway.url}/v1/videos", json={"prompt": "a cat", **VIDEO}, timeout=30)
    running = scene.gateway.get(f"/v1/videos/{video}").json()
    finished = scene.gateway.get(f"/v1/videos/{scene.finished}").json()
    data = content(scene.gateway, scene.finished)
    cluster.nats.start()
    done = scene.gateway.until(video)

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert (running["status"], finished["status"], data) == ("in_progress", "completed", scene.undisturbed)
    # The source computed on and wrote down later what it had.
    assert (done["status"], done["usage"]["attempts"]) == ("completed", 1)
    assert scene.told(DENOISER, "outage outlasted patience") == given_up
    assert scene.is_intact(video)


def test_05_an_outage_beyond_all_patience_is_handed_back_and_costs_an_attempt(scene: Scene) -> None:
    video, given_up = scene.begin(), scene.told(DENOISER, "outage outlasted patience")
    scene.cluster.nats.kill()
    until(lambda: scene.told(DENOISER, "outage outlasted patience") > given_up)
    scene.cluster.nats.start()
    done = scene.gateway.until(video)

    assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
    assert scene.is_intact(video)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_05_five_minutes_without_a_broker_cost_no_job(tmp_path: Path) -> None:
    for scene in served(tmp_path, {}):
        video = scene.begin()
        scene.cluster.nats.kill()
        time.sleep(320)  # the fault itself: longer than a worker's patience as it is by default
        answers = {scene.gateway.get(f"/v1/videos/{each}").status_code for each in (video, scene.finished)}
        data = content(scene.gateway, scene.finished)
        scene.cluster.nats.start()
        scene.cluster.wait_ready()
        done = scene.gateway.until(video)

        assert (answers, data) == ({200}, scene.undisturbed)
        assert done["status"] == "completed"
        assert scene.is_intact(video)


def fill(disk: Path) -> None:
    """Take all that is left of a file system."""
    try:
        with (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


@pytest.mark.skipif(not cramped_uploader.is_possible(), reason="may not mount anything for one process")
@pytest.mark.parametrize("mended", ["here", pytest.param("elsewhere", marks=pytest.mark.long)])
def test_13_an_upload_without_room_waits_for_it_or_goes_elsewhere(scene: Scene, mended: str) -> None:
    cluster, full = scene.cluster, scene.told(CRAMPED, "No space left")
    cluster.scale(UPLOADER, 0)
    cluster.scale(CRAMPED, 1)
    # Python looks for a folder for temporary files once, and takes another where there is no room then.
    scene.gateway.until(scene.gateway.make(num_frames=1, num_inference_steps=1))
    disk = cramped_uploader.disk_of(cluster.process(CRAMPED).pid, scene.temporary)
    fill(disk)
    video = scene.gateway.make(**VIDEO)
    until(lambda: scene.told(CRAMPED, "No space left") > full)
    meanwhile, tokens = scene.gateway.get(f"/v1/videos/{video}").json(), result_tokens(cluster, video)
    if mended == "here":
        (disk / "filler").unlink()
    else:
        cluster.scale(UPLOADER, 1)
    done = scene.gateway.until(video)
    cluster.scale(CRAMPED, 0)
    cluster.scale(UPLOADER, 1)

    assert (meanwhile["status"], tokens) == ("in_progress", set())
    assert done["status"] == "completed"
    assert scene.is_intact(video)


def rebuilt(cluster: Cluster) -> str:
    """Run the rebuild as a person would and return what it says last."""
    command = [sys.executable, "-m", "vitascope_platform.rebuild"]
    done = subprocess.run(command, env=cluster.env(), capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()[-1]


def made_at_last(gateway: Gateway) -> str:
    """Start the video as soon as the workers have shown again what they can do, and return its id."""
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.post(f"{gateway.url}/v1/videos", json={"prompt": "a cat", **VIDEO}, timeout=60)
        if answer.status_code == 200:
            return str(answer.json()["id"])
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def test_06_finished_jobs_outlive_the_brokers_volume_and_unfinished_ones_are_gone(scene: Scene) -> None:
    cluster, gateways = scene.cluster, [Gateway(url) for url in scene.cluster.gateways]
    before = gateways[0].get(f"/v1/videos/{scene.finished}").json()
    lost = [gateways[0].make(**{**VIDEO, "num_inference_steps": steps}) for steps in (1, 1, 500)]
    gateways[0].until_progress(lost[0], 85)
    pids = [process.pid for process in cluster.processes()]
    made = len({key.split("/")[0] for key in objects(cluster, "vitascope-results")})
    cluster.nats.kill()
    shutil.rmtree(cluster.nats.folder / "store")
    cluster.nats.start()
    cluster.bootstrap()
    said = rebuilt(cluster)
    for gateway in gateways:
        until(lambda: all(gateway.get(f"/v1/videos/{video}").status_code == 404 for video in lost))  # noqa: B023
    after = [gateway.until(scene.finished) for gateway in gateways]
    anew = made_at_last(gateways[1])
    done = gateways[0].until(anew)
    until_tidy(cluster, [*lost, anew])

    assert said == f"{made} rebuilt, 0 left alone, 0 damaged"
    assert after == [before, before]
    assert content(gateways[1], scene.finished) == scene.undisturbed
    assert (done["status"], scene.is_intact(anew)) == ("completed", True)
    assert objects(cluster, FRAMES, "jobs/") == set()
    assert [process.pid for process in cluster.processes() if process.alive] == pids
