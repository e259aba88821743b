"""What a newcomer gets without a download: clips and pictures that show what was asked for."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from serving import Server, decode

from tools.train.checker import Seen, look
from tools.train.scenes import Combination, caption, split

CLIPS = 12


def seen(frames: Sequence[np.ndarray]) -> Seen:
    """Return what uint8 frames (H, W, 3) show."""
    clip = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255
    return look(clip)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    with Server(tmp_path_factory.mktemp("demo")) as server:
        yield server


@pytest.fixture(scope="module")
def shown(demo: Server) -> list[tuple[Combination, Seen]]:
    """Clips of combinations that the model was not trained on, and what they show."""
    _, wanted = split()
    videos = [
        (what, demo.make(prompt=caption(what, Random(place), whole=True), seed=place))
        for place, what in enumerate(wanted[:CLIPS])
    ]
    return [(what, seen(_frames(demo, demo.until(video)["id"]))) for what, video in videos]


def _frames(server: Server, video: str) -> list[np.ndarray]:
    return decode(server.get(f"/v1/videos/{video}/content").content)


@pytest.mark.parametrize(("part", "least"), [("colour", 11), ("background", 11), ("motion", 9), ("shape", 9)], ids=str)
def test_clips_show_what_their_prompts_say(shown: list[tuple[Combination, Seen]], part: str, least: int) -> None:
    wrong = [(what, found) for what, found in shown if getattr(what, part) != getattr(found, part)]

    assert len(shown) - len(wrong) >= least, wrong


def test_a_picture_shows_what_its_prompt_says(demo: Server) -> None:
    made = demo.openai.images.generate(
        prompt="a green square on a white background", response_format="b64_json", extra_body={"seed": 4}
    )
    assert made.data is not None
    assert made.data[0].b64_json is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json))).convert("RGB"))

    found = seen([picture])
    assert (found.background, found.colour) == ("white", "green")


def test_the_demo_serves_every_stage_without_a_download(demo: Server) -> None:
    made = demo.until(
        demo.make(
            prompt="a red circle moves right on a blue background",
            seed=3,
            enable_frame_interpolation=True,
            enable_upscaling=True,
        )
    )
    frames = _frames(demo, made["id"])

    assert (made["status"], made["size"], len(frames)) == ("completed", "256x256", 33)
    assert (seen(frames).background, seen(frames).colour) == ("blue", "red")


def test_the_first_lines_name_a_prompt_that_the_demo_understands(demo: Server) -> None:
    assert any("-F prompt='a red circle moves right on a blue background'" in line for line in demo.lines)
