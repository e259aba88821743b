"""Upscaling from request to file: in one process, on a cluster, and when an upscaler dies."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from aftermath import SHORT, content, until_tidy
from clustering import metric, tasks_done
from media_clips import clip, frame
from PIL import Image
from serving import Api, Gateway, Server, decode

from bench.literal_esrgan import seeded_weights, upscale
from tools.cluster.cluster import UPSCALER, Cluster
from vitascope_platform.faults import FaultPoint
from vitascope_upscaler.architecture import Rrdb

VIDEO = {
    "size": "64x48",
    "num_frames": 10,
    "chunk_frames": 2,
    "fps": 8,
    "seed": 3,
    "enable_upscaling": True,
    "upscaling_scale": 3,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in the public format."""
    path = tmp_path_factory.mktemp("esrgan") / "x4.pth"
    torch.save({"params_ema": seeded_weights(Rrdb(8, 1, 4, 1, 2).shapes(), seed=1)}, path)
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Cluster]:
    env = {
        "VITASCOPE_UPSCALER_MODEL_PATH": str(weights),
        "VITASCOPE_UPSCALER_DEVICE": "cpu",
        "VITASCOPE_UPSCALER_MEMORY_MIB": "1",
        "OMP_NUM_THREADS": "1",
    }
    with Cluster(
        tmp_path_factory.mktemp("cluster"), env=SHORT, service_env={UPSCALER: env}, replicas={UPSCALER: 2}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Server]:
    flags = ("--model-path=testcard", "--enable-upscaling", f"--upscaling-model-path={weights}", "--device=cpu")
    with Server(tmp_path_factory.mktemp("state"), *flags, env={"OMP_NUM_THREADS": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(server: Server) -> bytes:
    """What one process makes of it."""
    video = server.make(**VIDEO)
    done = server.until(video)
    assert (done["status"], done["num_frames"], done["size"]) == ("completed", 10, "192x144")
    return content(server, video)


def picture(api: Api) -> np.ndarray:
    """Make a picture as a client does, and return it."""
    fields = {"prompt": "a cat", "size": "64x48", "seed": 3, "response_format": "b64_json"}
    asked = {**fields, "enable_upscaling": True, "upscaling_scale": 2}
    answer = httpx.post(f"{api.url}/v1/images/generations", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))))


def test_one_process_and_a_cluster_make_the_same_frames(cluster: Cluster, undisturbed: bytes) -> None:
    gateway = Gateway(cluster.gateways[0])
    video = gateway.make(**VIDEO)
    done = gateway.until(video)
    frames = decode(content(gateway, video))

    assert (done["status"], done["size"], len(frames)) == ("completed", "192x144", 10)
    assert np.abs(np.stack(frames).astype(int) - np.stack(decode(undisturbed))).max() <= 1
    assert sum(tasks_done(process, "upscale") for process in cluster.processes(UPSCALER)) == 5


def test_a_picture_is_the_same_from_both(cluster: Cluster, server: Server) -> None:
    one, other = picture(server), picture(Gateway(cluster.gateways[0]))

    assert one.shape == (96, 128, 3)
    assert np.array_equal(one, other)


def test_a_frame_that_no_upscaler_has_memory_for_is_refused_at_once(cluster: Cluster) -> None:
    fields = {"prompt": "a cat", **VIDEO, "size": "256x256"}
    answer = httpx.post(f"{cluster.gateways[0]}/v1/videos", json=fields, timeout=60)

    told = answer.json()["error"]
    assert (answer.status_code, told["param"], told["code"]) == (400, "size", "invalid_value")
    assert "at most 3495 pixels in all" in told["message"]


def enhance(api: Api, path: Path, **fields: object) -> str:
    """Send a clip to be enlarged as any client would, and return the new video's id."""
    texts = {"enable_upscaling": "true", **{name: str(value) for name, value in fields.items()}}
    with path.open("rb") as file:
        answer = httpx.post(f"{api.url}/v1/videos/enhance", data=texts, files={"video": (path.name, file)}, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_an_uploaded_clip_is_enlarged(server: Server, tmp_path: Path) -> None:
    # Without loss and in RGB, so that what is read is what was drawn.
    lossless = {"codec": "libx264rgb", "pix_fmt": "rgb24", "lossless": True}
    source = clip(tmp_path / "clip.mkv", 7, size=(63, 47), **lossless)
    video = enhance(server, source, upscaling_scale=3, chunk_frames=3, output_quality="maximum")
    done = server.until(video)
    made = np.stack(decode(content(server, video)))

    drawn = np.stack([frame(number, 63, 47) for number in range(7)])
    expected = upscale(seeded_weights(Rrdb(8, 1, 4, 1, 2).shapes(), seed=1), drawn, 3)
    assert (done["status"], done["num_frames"], done["fps"]) == ("completed", 7, 24)
    # The size is that of the file: 189x141 and the last column and row once more, since H.264 needs even sides.
    assert (done["size"], made.shape) == ("190x142", (7, 142, 190, 3))
    assert set(done["usage"]["seconds"]) == {"ingest", "upscale", "upload"}
    # H.264 halves the colours' resolution, which costs this picture 4 levels; another frame would be 10 away.
    assert np.abs(made[:, :141, :189].astype(int) - expected).mean((1, 2, 3)).max() < 5


def test_a_finished_video_is_enlarged_without_being_sent(server: Server) -> None:
    first = server.make(size="64x48", num_frames=4, fps=8)
    server.until(first)
    body = {"video": {"id": first}, "enable_upscaling": True, "upscaling_scale": 2}
    answer = httpx.post(f"{server.url}/v1/videos/enhance", json=body, timeout=60).json()
    done = server.until(answer["id"])

    assert (answer["size"], done["size"], done["status"]) == ("128x96", "128x96", "completed")
    assert [picture.shape for picture in decode(content(server, answer["id"]))] == [(96, 128, 3)] * 4


def test_a_finished_video_that_no_upscaler_has_memory_for_is_refused_at_once(cluster: Cluster) -> None:
    gateway = Gateway(cluster.gateways[0])
    first = gateway.make(size="128x128", num_frames=2)
    gateway.until(first)
    answer = httpx.post(f"{gateway.url}/v1/videos/enhance", json={"video_id": first, "enable_upscaling": True})

    told = answer.json()["error"]
    assert (answer.status_code, told["param"], told["code"]) == (400, "video_id", "invalid_value")
    assert "at most 3495 pixels in all" in told["message"]


def test_an_uploaded_clip_that_no_upscaler_has_memory_for_is_refused_when_it_comes(
    cluster: Cluster, tmp_path: Path
) -> None:
    def retried() -> float:
        counted = {"stage": "upscale", "outcome": "retried"}
        return sum(metric(process, "vitascope_stage_tasks_total", **counted) for process in cluster.processes(UPSCALER))

    gateway, before = Gateway(cluster.gateways[0]), retried()
    video = enhance(gateway, clip(tmp_path / "clip.mp4", 3, size=(128, 128)))
    failed = gateway.until(video)
    until_tidy(cluster, [video])

    assert (failed["status"], failed["error"]["code"]) == ("failed", "invalid_value")
    assert "at most 3495 pixels in all" in failed["error"]["message"]
    assert retried() == before


def test_an_upscaler_that_is_killed_costs_no_frame(cluster: Cluster, undisturbed: bytes, tmp_path: Path) -> None:
    gateway, marker = Gateway(cluster.gateways[0]), tmp_path / "died"
    deadly = {"VITASCOPE_FAULT_POINT": str(FaultPoint.BEFORE_RECORD), "VITASCOPE_FAULT_MARKER": str(marker)}
    for index in range(2):
        cluster.kill(UPSCALER, index)
        cluster.restart(UPSCALER, index, extra=deadly)
    video = gateway.make(**VIDEO)
    done = gateway.until(video)
    until_tidy(cluster, [video])

    assert sorted(process.alive for process in cluster.processes(UPSCALER)) == [False, True]
    assert (done["status"], done["usage"]["attempts"]) == ("completed", 1)
    frames, expected = decode(content(gateway, video)), decode(undisturbed)
    assert np.abs(np.stack(frames).astype(int) - np.stack(expected)).max() <= 1
