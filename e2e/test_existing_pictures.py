"""Pictures that are there already, enlarged by a real network: on the command line, by one process, by a cluster."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from aftermath import until_tidy
from clustering import ClusterGateway, tasks_done
from media_clips import frame
from openai import BadRequestError
from openai.types import ImagesResponse
from PIL import Image
from serving import Api, Server

from bench.literal_esrgan import seeded_weights, upscale
from tools.cluster.cluster import UPSCALER, Cluster
from vitascope_upscaler.architecture import Rrdb

MOST_PIXELS = 3495
"""What a frame may have on the cluster, whose upscaler gets 1 MiB."""

DRAWN = np.dstack([frame(7), np.linspace(0, 255, 48 * 64).astype(np.uint8).reshape(48, 64)])


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
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(folder, service_env={UPSCALER: env}, replicas={UPSCALER: 1}) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Server]:
    flags = ("--model-path=testcard", "--enable-upscaling", f"--upscaling-model-path={weights}", "--device=cpu")
    with Server(tmp_path_factory.mktemp("state"), *flags, env={"OMP_NUM_THREADS": "1"}) as running:
        yield running


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def enhance(api: Api, data: bytes, **fields: object) -> ImagesResponse:
    """Send a picture as a user of the official client does."""
    return api.openai.post(
        "/images/enhance",
        cast_to=ImagesResponse,
        body=fields,
        files={"image": ("photo.png", data)},
        options={"headers": {"Content-Type": "multipart/form-data"}},
    )


def pixels_of(made: ImagesResponse) -> np.ndarray:
    assert made.data is not None
    return np.array(Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json or ""))))


@pytest.mark.parametrize("channels", [3, 4], ids=["opaque", "transparent"])
def test_the_command_line_one_process_and_a_cluster_make_the_same_pixels(
    cluster: Cluster, server: Server, weights: Path, tmp_path: Path, channels: int
) -> None:
    data = png(DRAWN[..., :channels].copy())
    (tmp_path / "photo.png").write_bytes(data)
    words = ["enhance", "photo.png", "--upscaling-scale=3", f"--upscaling-model-path={weights}", "--device=cpu"]
    command = [sys.executable, "-m", "vitascope_cli", *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=env)
    typed = np.array(Image.open(io.BytesIO((tmp_path / "photo-enhanced.png").read_bytes())))
    answers = [enhance(api, data, upscaling_scale=3) for api in (server, ClusterGateway(cluster))]
    expected = upscale(seeded_weights(Rrdb(8, 1, 4, 1, 2).shapes(), seed=1), DRAWN[None, ..., :3], 3)[0]

    assert (done.returncode, done.stdout) == (0, "photo-enhanced.png\n"), done.stderr
    assert [answer.size for answer in answers] == ["192x144"] * 2
    assert typed.shape == (144, 192, channels)
    assert np.abs(typed[..., :3].astype(int) - expected).max() <= 1
    assert all(np.array_equal(pixels_of(answer), typed) for answer in answers)


def test_a_finished_picture_is_fetched_from_where_the_answer_says(cluster: Cluster) -> None:
    gateway = ClusterGateway(cluster)
    made = enhance(gateway, png(DRAWN), response_format="url", output_format="webp")
    assert made.data is not None
    fetched = httpx.get(made.data[0].url or "", follow_redirects=True, timeout=60)
    job = made.model_dump()["id"]
    until_tidy(cluster, [job])

    assert made.data[0].b64_json is None
    with Image.open(io.BytesIO(fetched.content)) as picture:
        assert (picture.format, picture.size, picture.mode) == ("WEBP", (256, 192), "RGBA")


def animated() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame(0)).save(buffer, "WEBP", save_all=True, append_images=[Image.fromarray(frame(1))])
    return buffer.getvalue()


def huge() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (8000, 5000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"a letter", "unsupported_media", "no picture that is read here"),
        (animated(), "unsupported_media", "holds 2 pictures"),
        (png(DRAWN)[:200], "damaged_media", "the picture is damaged"),
        (huge(), "media_too_large", "8000x5000, more than 35389440 pixels"),
        (png(np.zeros((64, 64, 3), np.uint8)), "invalid_value", f"image must be at most {MOST_PIXELS} pixels in all"),
    ],
    ids=["a letter", "animated", "cut short", "a bomb", "beyond the upscaler's memory"],
)
def test_a_picture_that_is_no_good_is_a_bad_request_that_no_upscaler_sees(
    cluster: Cluster, data: bytes, code: str, said: str
) -> None:
    [upscaler] = cluster.processes(UPSCALER)
    before = tasks_done(upscaler, "upscale")
    with pytest.raises(BadRequestError, match=said) as told:
        enhance(ClusterGateway(cluster), data)

    assert (told.value.status_code, told.value.code, told.value.param) == (400, code, "image")
    assert tasks_done(upscaler, "upscale") == before
