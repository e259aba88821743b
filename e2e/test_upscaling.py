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
from clustering import tasks_done
from PIL import Image
from serving import Api, Gateway, Server, decode

from bench.literal_esrgan import seeded_weights
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
