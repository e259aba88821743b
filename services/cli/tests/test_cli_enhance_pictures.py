"""``vitascope enhance`` on a picture, with a real upscaler: weights in the public format, random but fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from media_clips import frame
from PIL import Image

from bench.literal_esrgan import seeded_weights, upscale
from vitascope_cli.main import run
from vitascope_upscaler.architecture import Rrdb

pytestmark = pytest.mark.timeout(120)

WEIGHTS = seeded_weights(Rrdb(8, 1, 4, 1, 2).shapes(), 1)
DRAWN = frame(7)
VEIL = np.linspace(0, 255, 48 * 64).astype(np.uint8).reshape(48, 64)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("esrgan") / "x4.pth"
    torch.save({"params_ema": WEIGHTS}, path)
    return [f"--upscaling-model-path={path}", "--device=cpu"]


@pytest.mark.parametrize(("words", "scale"), [([], 4), (["--upscaling-scale=1.5"], 1.5)])
def test_a_picture_is_enlarged_as_the_literal_procedure_does(folder: Path, flags, capsys, words, scale: float) -> None:
    Image.fromarray(DRAWN).save("My photo.png")
    before = Path("My photo.png").read_bytes()

    assert run(["enhance", "My photo.png", *flags, *words]) == 0
    made = np.array(Image.open("My photo-enhanced.png"))
    expected = upscale(WEIGHTS, DRAWN[None], scale)[0]

    assert capsys.readouterr().out == "My photo-enhanced.png\n"
    assert made.shape == expected.shape == (int(48 * scale), int(64 * scale), 3)
    assert np.abs(made.astype(int) - expected).max() <= 1
    assert Path("My photo.png").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["My photo-enhanced.png", "My photo.png"]


def test_transparency_is_enlarged_with_the_colours(flags) -> None:
    Image.fromarray(np.dstack([DRAWN, VEIL])).save("a.png")

    assert run(["enhance", "a.png", *flags, "--upscaling-scale=2"]) == 0
    made = np.array(Image.open("a-enhanced.png"))
    veil = np.array(Image.fromarray(VEIL).resize((128, 96), Image.Resampling.BICUBIC))

    assert made.shape == (96, 128, 4)
    assert np.abs(made[..., :3].astype(int) - upscale(WEIGHTS, DRAWN[None], 2)[0]).max() <= 1
    assert np.abs(made[..., 3].astype(int) - veil).max() <= 8  # another cubic than Pillow's
    assert made[0, 0, 3] == 0
    assert made[-1, -1, 3] == 255


@pytest.mark.parametrize(
    ("words", "name", "file_format"),
    [
        (["--output-format=webp"], "a-enhanced.webp", "WEBP"),
        (["--output-format=jpeg"], "a-enhanced.jpg", "JPEG"),
        (["-o", "new/b.JPEG"], "new/b.JPEG", "JPEG"),
        (["-o", "b.png", "--output-format=png"], "b.png", "PNG"),
    ],
)
def test_the_format_is_the_one_that_was_asked_for(flags, capsys, words, name: str, file_format: str) -> None:
    Image.fromarray(np.dstack([DRAWN, np.zeros_like(VEIL)])).save("a.png")

    assert run(["enhance", "a.png", *flags, "--upscaling-scale=1", *words, "--output-quality=maximum"]) == 0
    with Image.open(name) as made:
        shown, mode = made.format, made.mode
        pixels = np.array(made)

    assert capsys.readouterr().out == f"{name}\n"
    assert (shown, pixels.shape[:2]) == (file_format, (48, 64))
    if file_format == "JPEG":
        # It has no transparency: what is clear is shown on white.
        assert (mode, pixels.min()) == ("RGB", 255)
    else:
        assert (mode, pixels[..., 3].max()) == ("RGBA", 0)


def test_a_photo_is_made_upright(flags) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(DRAWN).save("a.jpg", exif=tags)

    assert run(["enhance", "a.jpg", *flags, "--upscaling-scale=2"]) == 0
    with Image.open("a-enhanced.png") as made:
        assert (made.size, made.getexif().get(0x0112)) == ((96, 128), None)


def test_a_moving_png_is_a_video(flags, capsys) -> None:
    shots = [Image.fromarray(frame(number)) for number in range(3)]
    shots[0].save("a.png", save_all=True, append_images=shots[1:], duration=100)

    assert run(["enhance", "a.png", *flags, "--upscaling-scale=1"]) == 0
    assert capsys.readouterr().out == "a-enhanced.mp4\n"
