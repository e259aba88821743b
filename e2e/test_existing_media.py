"""Videos that are there already, through HTTP: every frame, its rate and the sound, in one process and in a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import torch
from aftermath import SHORT, until_tidy
from clustering import INVERTED, INVERTER, ClusterGateway, inverter, metric
from media_clips import clip, sound_packets
from openai.types import Video
from serving import Server, decode, numbers

from bench.literal_rife import seeded_weights
from tools.cluster.cluster import Cluster
from vitascope_frames.testcard import read_number
from vitascope_interpolator.architecture import RIFE_4_22_LITE

TWICE = {"enable_frame_interpolation": True, "frame_interpolation_exp": 1}
Api = Server | ClusterGateway


@pytest.fixture(scope="module", params=["one process", "cluster"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The testcard and a real interpolator with seeded weights."""
    folder, weights = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("rife")
    torch.save(seeded_weights(RIFE_4_22_LITE.shapes(), seed=1), weights / "flownet.pkl")
    if request.param == "one process":
        flags = ["--enable-frame-interpolation", f"--frame-interpolation-model-path={weights}", "--device=cpu"]
        with Server(folder, "--model-path=testcard", *flags) as server:
            yield server
        return
    told = {"VITASCOPE_INTERPOLATOR_MODEL_PATH": str(weights), "VITASCOPE_INTERPOLATOR_DEVICE": "cpu"}
    with Cluster(folder, replicas={"interpolator": 1, "uploader": 2}, service_env={"interpolator": told}) as cluster:
        yield ClusterGateway(cluster)


def enhance(api: Any, path: Path, **fields: object) -> str:
    """Send a file as any client would, and return the new video's id."""
    texts = {name: str(value).lower() for name, value in fields.items()}
    with path.open("rb") as file:
        answer = httpx.post(f"{api.url}/v1/videos/enhance", data=texts, files={"video": (path.name, file)}, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def content(api: Any, video: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{video}.mp4"
    path.write_bytes(httpx.get(f"{api.url}/v1/videos/{video}/content", follow_redirects=True, timeout=60).content)
    return path


def test_an_uploaded_clip_gets_frames_between_its_frames(api: Api, tmp_path: Path) -> None:
    source = clip(tmp_path / "clip.mp4", 24, fps=Fraction(24000, 1001), sound="aac")
    with source.open("rb") as file:
        made = api.openai.post(
            "/videos/enhance",
            cast_to=Video,
            body={**TWICE, "chunk_frames": 7},
            files={"video": file},
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )
    done = api.until(made.id)
    path = content(api, made.id, tmp_path)
    with av.open(path) as container:
        rate = container.streams.video[0].average_rate

    assert done["status"] == "completed", done
    assert (done["size"], done["num_frames"], done["fps"], done["seconds"]) == ("64x48", 47, 47.952, "1")
    assert [read_number(picture) for picture in decode(path.read_bytes())[::2]] == list(range(24))
    assert rate == Fraction(48000, 1001)
    assert [data for _, data in sound_packets(path)] == [data for _, data in sound_packets(source)]
    assert {"ingest", "interpolate", "upload"} == set(done["usage"]["seconds"])
    for variant in ("thumbnail", "spritesheet"):
        assert api.get(f"/v1/videos/{made.id}/content?variant={variant}").status_code in (200, 302)


def test_a_finished_video_is_enhanced_without_being_sent(api: Api, tmp_path: Path) -> None:
    first = api.make(num_frames=9, size="64x64", output_quality="high")
    api.until(first)
    answer = httpx.post(f"{api.url}/v1/videos/enhance", json={"video": {"id": first}, **TWICE}, timeout=60).json()
    # The copy does not need the original any more.
    httpx.delete(f"{api.url}/v1/videos/{first}", timeout=60)
    done = api.until(answer["id"])
    pictures = decode(content(api, answer["id"], tmp_path).read_bytes())

    assert (answer["size"], answer["num_frames"], answer["fps"]) == ("64x64", 17, 32)
    assert (done["status"], done["num_frames"], done["remixed_from_video_id"]) == ("completed", 17, first)
    assert [read_number(picture) for picture in pictures[::2]] == list(range(9))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda data: data[: len(data) // 2], "damaged_media"),
        (lambda data: b"a letter", "unsupported_media"),
        (lambda data: b"ffconcat version 1.0\nfile '/etc/hostname'\n", "unsupported_media"),
    ],
    ids=["cut short", "no media", "a script"],
)
def test_a_file_that_cannot_be_used_fails_its_job_and_nothing_else(api: Api, tmp_path: Path, harm, code: str) -> None:
    data = clip(tmp_path / "whole.mp4", 12, options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "clip.mp4").write_bytes(harm(data))
    video = enhance(api, tmp_path / "clip.mp4", **TWICE)
    failed = api.until(video)
    well = api.until(enhance(api, tmp_path / "whole.mp4", **TWICE))

    assert (failed["status"], failed["error"]["code"]) == ("failed", code)
    assert well["status"] == "completed"
    if isinstance(api, Server):
        assert not any(video in name for name in api.files("frames"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two uploaders, whose work is soon taken over, and an inverter that takes its time."""
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, replicas={"uploader": 2}, env=SHORT, extra={INVERTER: inverter(1, delay_s=0.05)}) as cluster:
        yield cluster


def test_a_killed_uploader_costs_an_attempt_and_no_frame(cluster: Cluster, tmp_path: Path) -> None:
    gateway = ClusterGateway(cluster)
    source = clip(tmp_path / "clip.mp4", 120, size=(256, 192), sound="aac")
    video = enhance(gateway, source, chunk_frames=2, **INVERTED)
    gateway.until_progress(video, 3)
    busy = next(
        index
        for index, process in enumerate(cluster.processes("uploader"))
        if metric(process, "vitascope_stage_tasks_in_flight", stage="ingest")
    )
    cluster.kill("uploader", busy)
    done = gateway.until(video)
    cluster.restart("uploader", busy)
    path = content(gateway, video, tmp_path)

    assert (done["status"], done["usage"]["attempts"]) == ("completed", 2)
    assert (done["fps"], done["num_frames"], done["usage"]["frames"]) == (24, 120, 120)
    # The inverter inverts the pixels, so the numbers are read from the negative.
    assert [read_number(255 - picture) for picture in decode(path.read_bytes())] == list(range(120))
    assert [data for _, data in sound_packets(path)] == [data for _, data in sound_packets(source)]
    until_tidy(cluster, [video])


def test_a_job_that_is_deleted_stops_being_read(cluster: Cluster, tmp_path: Path) -> None:
    gateway = ClusterGateway(cluster)
    video = enhance(gateway, clip(tmp_path / "clip.mp4", 400, size=(256, 192)), chunk_frames=2, **INVERTED)
    gateway.until_progress(video, 2)
    assert httpx.delete(f"{gateway.url}/v1/videos/{video}", timeout=60).status_code == 200

    until_tidy(cluster, [video])
    assert gateway.get(f"/v1/videos/{video}").status_code == 404


def peak_kib(path: Path) -> tuple[int, int]:
    """Return how many frames came out, and the most memory that the process or any it started has held, KiB."""
    script = Path(__file__).parent / "enhancing.py"
    process = subprocess.Popen([sys.executable, str(script), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    frames = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return int(frames), usage.ru_maxrss


@pytest.mark.parametrize("frames", [40, pytest.param(1000, marks=pytest.mark.long)])
def test_a_clip_that_is_ten_times_longer_takes_no_more_memory(tmp_path: Path, frames: int) -> None:
    size = {"size": (480, 360), "sound": "aac"}  # 2.6 MB of raw frames a chunk
    short, brief = peak_kib(clip(tmp_path / "short.mp4", frames, **size))
    long, most = peak_kib(clip(tmp_path / "long.mp4", frames * 10, **size))

    assert (short, long) == (frames, frames * 10)
    assert most < brief * 1.1, (brief, most)


def test_numbers_are_those_of_the_clip(tmp_path: Path) -> None:
    # What the tests above rest on.
    assert numbers(clip(tmp_path / "a.mp4", 5).read_bytes()) == list(range(5))
