"""Promise 1: unmodified clients work. Here the OpenAI Python SDK, against a real server."""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from pathlib import Path

import av
import httpx
import openai
import pytest
from PIL import Image
from serving import Server, decode, numbers


def test_a_video_is_made_polled_and_downloaded(testcard: Server) -> None:
    with testcard.openai as client:
        video = client.videos.create_and_poll(
            prompt="a cat", size="320x240", seconds="2", extra_body={"fps": 12, "seed": 7}
        )
        assert (video.status, video.progress, video.size, video.seconds) == ("completed", 100, "320x240", "2")

        data = client.videos.download_content(video.id).read()
    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.video[0]
        assert (stream.width, stream.height, float(stream.average_rate)) == (320, 240, 12.0)
    frames = numbers(data)
    assert frames == list(range(len(frames)))
    assert len(frames) == 24


@pytest.mark.parametrize(("frames", "fps", "size"), [(1, 16, "64x64"), (9, 12.5, "66x50"), (33, 24, "128x96")])
def test_frames_fps_and_size_are_those_asked_for(testcard: Server, frames: int, fps: float, size: str) -> None:
    with testcard.openai as client:
        video = client.videos.create_and_poll(prompt="a", size=size, extra_body={"num_frames": frames, "fps": fps})
        data = client.videos.download_content(video.id).read()

    with av.open(io.BytesIO(data)) as file:
        stream = file.streams.video[0]
        decoded = list(file.decode(stream))
        assert (len(decoded), f"{stream.width}x{stream.height}") == (frames, size)
        steps = {b.pts * b.time_base - a.pts * a.time_base for a, b in pairwise(decoded)}
        assert all(abs(float(step) * fps - 1) < 1e-6 for step in steps)


def test_an_image_is_streamed_with_a_preview(state: Path) -> None:
    with Server(state, "--model-path=testcard", "--testcard-step-s=0.7") as server, server.openai as client:
        stream = client.images.generate(
            prompt="a cat",
            size="64x64",
            stream=True,
            partial_images=1,
            extra_body={"num_inference_steps": 4, "seed": 1},
        )
        preview, image = list(stream)

    assert (preview.type, preview.partial_image_index) == ("image_generation.partial_image", 0)
    assert (image.type, image.size) == ("image_generation.completed", "64x64")
    sizes = [Image.open(io.BytesIO(base64.b64decode(event.b64_json))).size for event in (preview, image)]
    assert sizes == [(64, 64), (64, 64)]


def test_the_poll_helper_is_told_how_long_to_wait(testcard: Server) -> None:
    with testcard.openai as client:
        video = client.videos.with_raw_response.create(prompt="a cat")

    assert int(video.headers["openai-poll-after-ms"]) > 0
    assert video.headers["x-request-id"]


def test_thumbnail_and_spritesheet(testcard: Server) -> None:
    with testcard.openai as client:
        video = client.videos.create_and_poll(prompt="a cat", size="320x240", extra_body={"num_frames": 9})
        thumbnail = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="thumbnail").read()))
        sheet = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="spritesheet").read()))

    assert (thumbnail.format, thumbnail.size) == ("WEBP", (320, 240))
    assert sheet.format == "JPEG"


def test_a_part_of_the_file_can_be_asked_for(testcard: Server) -> None:
    video = testcard.make()
    testcard.until(video)
    url = f"{testcard.url}/v1/videos/{video}/content"
    whole = httpx.get(url)
    part = httpx.get(url, headers={"range": "bytes=100-199"})

    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert whole.headers["accept-ranges"] == "bytes"


def test_the_list_is_paged_to_its_end(testcard: Server) -> None:
    made = [testcard.make(num_frames=1) for _ in range(5)]
    with testcard.openai as client:
        newest_first = [video.id for video in client.videos.list(limit=2)]
        oldest_first = [video.id for video in client.videos.list(limit=2, order="asc")]

    assert [i for i in newest_first if i in made] == made[::-1]
    assert oldest_first == newest_first[::-1]


def test_a_deleted_video_is_gone(testcard: Server) -> None:
    video = testcard.make()
    testcard.until(video)
    with testcard.openai as client:
        deleted = client.videos.delete(video)
        assert (deleted.id, deleted.deleted, deleted.object) == (video, True, "video.deleted")
        with pytest.raises(openai.NotFoundError):
            client.videos.retrieve(video)
        with pytest.raises(openai.NotFoundError):
            client.videos.download_content(video)

    assert not [name for name in testcard.files("results") if video in name]


@pytest.mark.parametrize(("output_format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_images_come_as_base64(testcard: Server, output_format: str, kind: str) -> None:
    with testcard.openai as client:
        answer = client.images.generate(
            prompt="a cat", n=2, size="96x64", response_format="b64_json", output_format=output_format
        )

    pictures = [Image.open(io.BytesIO(base64.b64decode(item.b64_json or ""))) for item in answer.data or []]
    assert [(picture.format, picture.size) for picture in pictures] == [(kind, (96, 64))] * 2


def test_images_come_as_absolute_urls(testcard: Server) -> None:
    with testcard.openai as client:
        answer = client.images.generate(prompt="a cat", n=2, size="64x64", response_format="url")

    for item in answer.data or []:
        assert (item.url or "").startswith(testcard.url)
        fetched = httpx.get(item.url or "")
        assert fetched.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(fetched.content)).size == (64, 64)


def test_models_are_listed_and_retrieved(testcard: Server) -> None:
    with testcard.openai as client:
        assert [model.id for model in client.models.list()] == ["testcard"]
        assert client.models.retrieve("testcard").object == "model"
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve("org/other")

    assert caught.value.code == "model_not_found"


def test_a_refusal_reaches_the_client_with_its_field(testcard: Server) -> None:
    with testcard.openai as client, pytest.raises(openai.BadRequestError) as caught:
        client.videos.create(prompt="a cat", extra_body={"num_inference_steps": 0})

    assert (caught.value.code, caught.value.param) == ("invalid_value", "num_inference_steps")


def test_the_same_seed_makes_the_same_file(testcard: Server) -> None:
    with testcard.openai as client:
        videos = [client.videos.create_and_poll(prompt="a", extra_body={"seed": seed}) for seed in (5, 5, 6)]
        first, same, other = (client.videos.download_content(video.id).read() for video in videos)

    assert first == same
    assert first != other


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_probes_answer(testcard: Server, path: str) -> None:
    assert testcard.get(path).status_code == 200


def test_two_outputs_are_two_files(testcard: Server) -> None:
    video = testcard.make(n=2, seed=3, num_frames=5)
    testcard.until(video)
    files = [testcard.get(f"/v1/videos/{video}/content?variant={output}").content for output in (0, 1)]

    assert [len(decode(data)) for data in files] == [5, 5]
    assert files[0] != files[1]
