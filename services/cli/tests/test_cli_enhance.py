"""``vitascope enhance``: an existing file or a folder of pictures through the transforms of one process."""

from __future__ import annotations

import os
import pty
import sys
import termios
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media_clips import clip, frame, sound_packets
from PIL import Image

from bench.literal_esrgan import seeded_weights as esrgan_weights
from bench.literal_esrgan import upscale
from bench.literal_rife import seeded_weights
from vitascope_cli import enhance as command
from vitascope_cli.main import run
from vitascope_core.card import StageCard
from vitascope_core.geometry import interpolated_start
from vitascope_core.plan import Options, StageName
from vitascope_frames.chunk import Chunk
from vitascope_frames.testcard import read_number
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_upscaler.architecture import Rrdb

pytestmark = pytest.mark.timeout(120)

RRDB = Rrdb(8, 1, 4, 1, 2)


@pytest.fixture(scope="module")
def rife(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rife")
    torch.save(seeded_weights(RIFE_4_22_LITE.shapes(), seed=1), folder / "flownet.pkl")
    return folder


@pytest.fixture(scope="module")
def esrgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("esrgan") / "x4.pth"
    torch.save({"params_ema": esrgan_weights(RRDB.shapes(), 1)}, path)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def flags(rife: Path) -> list[str]:
    return ["--frame-interpolation-exp=1", f"--frame-interpolation-model-path={rife}", "--device=cpu"]


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(path) as file:
        return [picture.to_ndarray(format="rgb24") for picture in file.decode(video=0)]


def test_a_clip_gets_frames_between_its_frames_and_keeps_its_sound(folder: Path, flags: list[str], capsys) -> None:
    source = clip(folder / "My clip.mp4", 12, fps=Fraction(24000, 1001), sound="aac")
    before = source.read_bytes()

    assert run(["enhance", "My clip.mp4", *flags, "--output-quality=high"]) == 0
    made = frames_of(folder / "My clip-enhanced.mp4")
    with av.open(folder / "My clip-enhanced.mp4") as file:
        rate = file.streams.video[0].average_rate

    assert capsys.readouterr().out == "My clip-enhanced.mp4\n"
    assert [read_number(picture) for picture in made[::2]] == list(range(12))
    assert (len(made), rate) == (23, Fraction(48000, 1001))
    assert [data for _, data in sound_packets(folder / "My clip-enhanced.mp4")] == [d for _, d in sound_packets(source)]
    assert source.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["My clip-enhanced.mp4", "My clip.mp4"]


@pytest.mark.parametrize(("scale", "between"), [("2", False), ("1.5", True)], ids=["alone", "after interpolation"])
def test_every_frame_of_a_clip_is_enlarged(
    folder: Path, esrgan: Path, flags: list[str], capsys, scale: str, between: bool
) -> None:
    # Without loss and in RGB, so that what is read is what was drawn.
    source = clip(folder / "a.mkv", 7, codec="libx264rgb", pix_fmt="rgb24", lossless=True, sound="aac")
    larger = [f"--upscaling-scale={scale}", f"--upscaling-model-path={esrgan}", "--device=cpu"]
    words = ["enhance", "a.mkv", *larger, *(flags if between else []), "--output-quality=maximum"]

    assert run(words) == 0
    made = np.stack(frames_of(folder / "a-enhanced.mp4"))
    with av.open(folder / "a-enhanced.mp4") as file:
        rate = file.streams.video[0].average_rate

    drawn = np.stack([frame(number) for number in range(7)])
    expected = upscale(esrgan_weights(RRDB.shapes(), 1), drawn, float(scale))
    assert capsys.readouterr().out == "a-enhanced.mp4\n"
    assert (len(made), rate) == ((13, 48) if between else (7, 24))
    # The drawn frames pass the interpolation as they are.
    kept = made[::2] if between else made
    assert kept.shape == expected.shape == (7, int(48 * float(scale)), int(64 * float(scale)), 3)
    assert [int(np.abs(expected - picture.astype(int)).mean((1, 2, 3)).argmin()) for picture in kept] == list(range(7))
    # H.264 halves the colours' resolution, which costs this picture 4 levels; another frame would be 10 away.
    assert np.abs(kept.astype(int) - expected).mean() < 5
    assert len(sound_packets(folder / "a-enhanced.mp4")) == len(sound_packets(source))


def test_a_folder_of_pictures_becomes_a_video(folder: Path, flags: list[str], capsys) -> None:
    (folder / "shots").mkdir()
    for number in range(11):
        Image.fromarray(frame(number)).save(folder / "shots" / f"{number}.png")

    assert run(["enhance", "shots", "--fps=12.5", "-o", "new/film.mp4", *flags, "--output-quality=high"]) == 0
    with av.open(folder / "new" / "film.mp4") as file:
        rate = file.streams.video[0].average_rate

    assert capsys.readouterr().out == "new/film.mp4\n"
    assert rate == 25
    assert [read_number(picture) for picture in frames_of(folder / "new" / "film.mp4")[::2]] == list(range(11))


def test_a_file_that_is_there_is_replaced_only_if_told_so(folder: Path, flags: list[str], capsys) -> None:
    clip(folder / "a.mp4", 2)
    (folder / "b.mp4").write_bytes(b"precious")
    refused = run(["enhance", "a.mp4", "-o", "b.mp4", *flags])
    said = capsys.readouterr().err
    kept = (folder / "b.mp4").read_bytes()

    assert (refused, kept) == (2, b"precious")
    assert "b.mp4 is there already" in said
    assert run(["enhance", "a.mp4", "-o", "b.mp4", "--overwrite", *flags]) == 0
    assert len(frames_of(folder / "b.mp4")) == 3


class Repeater:
    """In place of a network: shows every frame twice, and takes its time."""

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        time.sleep(0.3)
        frames = np.repeat(chunk.frames, 2, axis=0)[0 if chunk.start else 1 :]
        return replace(chunk, frames=frames, lead=None, start=interpolated_start(chunk.start, 2), fps=chunk.fps * 2)


def test_progress_is_lines_without_a_terminal_and_a_bar_on_one(folder: Path, capsys, monkeypatch) -> None:
    card = StageCard(StageName.INTERPOLATE, exps=(1,), flow_scales=(1.0,))
    monkeypatch.setattr(command, "load_transforms", lambda _: [(card, Repeater())])
    # Two chunks, so that there is something to tell.
    clip(folder / "a.mp4", 12, size=(1280, 720))
    words = ["enhance", "a.mp4", "--frame-interpolation-exp=1", "--overwrite"]
    assert run(words) == 0
    lines = capsys.readouterr().err.splitlines()
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        code = run(words)
    shown = os.read(screen, 65536)
    os.close(screen)

    assert lines
    assert all(line.startswith("enhancing ") and line.endswith("0 %") for line in lines)
    assert (code, capsys.readouterr().out) == (0, "a-enhanced.mp4\n")
    assert b"enhancing" in shown
    assert b"|" in shown


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a.mp4"], 2, "nothing to do: ask for --frame-interpolation-exp or --upscaling-scale"),
        (["a.mp4", "--no-enable-upscaling"], 2, "nothing to do: ask for"),
        (["a.mp4", "--upscaling-scale=2", "--no-enable-upscaling"], 2, "contradicts --no-enable-upscaling"),
        (["a.mp4", "--upscaling-scale=9"], 2, "--upscaling-scale must be from 1 to 8, got 9"),
        (["a.mp4", "--upscaling-model-path=/no/such"], 1, "/no/such: no such file"),
        (["a.mp4", "--no-enable-frame-interpolation", "EXP"], 2, "contradicts --no-enable-frame-interpolation"),
        (["a.mp4", "--frame-interpolation-exp=5", "WEIGHTS"], 2, "frame_interpolation_exp must be one of"),
        (["a.mp4", "EXP", "-o", "film.webm"], 2, "--output must end in .mp4"),
        (["a.mp4", "EXP", "-o", "a.mp4"], 2, "a.mp4 is the input itself"),
        (["a.mp4", "EXP", "-o", "/proc/nowhere/a.mp4"], 1, "cannot write to /proc/nowhere"),
        (["a.mp4", "EXP", "--fps=30"], 2, "--fps is for folders"),
        (["shots", "EXP"], 2, "a folder of pictures needs --fps"),
        (["shots", "EXP", "--fps=0"], 2, "--fps must be more than 0"),
        (["shots", "EXP", "--fps=8"], 1, "2.png is 64x64, 1.png is 64x48"),
        (["empty", "EXP", "--fps=8"], 1, "holds no pictures"),
        (["nothing.mp4", "EXP"], 1, "cannot read nothing.mp4: there is no such file"),
        (["a.mp4", "EXP", "--prompt=x"], 2, "unknown argument --prompt"),
        (["empty.mp4", "EXP", "WEIGHTS"], 1, "empty.mp4 is empty"),
        (["photo.jpg", "EXP"], 2, "--frame-interpolation-exp is for videos: photo.jpg is a picture"),
        (["photo.jpg", "--enable-frame-interpolation"], 2, "--enable-frame-interpolation is for videos"),
        (["photo.jpg", "--no-enable-upscaling"], 2, "nothing to do"),
        (["photo.jpg", "--fps=8"], 2, "--fps is for folders"),
        (["photo.jpg", "-o", "a.mp4"], 2, "--output must end in .png or .jpg or .jpeg or .webp, got 'a.mp4'"),
        (["photo.jpg", "--output-format=mp4"], 2, "--output-format must be png or jpeg or webp for a picture, got mp4"),
        (["photo.jpg", "-o", "b.webp", "--output-format=png"], 2, "--output-format png contradicts --output b.webp"),
        (["a.mp4", "EXP", "--output-format=png"], 2, "--output-format must be mp4 for a video, got png"),
        (["photo.jpg", "SCALE", "ESRGAN", "--output-compression=50"], 2, "output_compression must be 100 or absent"),
        (["cut.jpg", "SCALE", "ESRGAN"], 1, "damaged_media: the picture is damaged"),
        (["letter.jpg", "SCALE", "ESRGAN"], 1, "unsupported_media: the file is no picture that is read here (PNG, "),
        (["animated.webp", "SCALE", "ESRGAN"], 1, "unsupported_media: the file holds 2 pictures"),
        (["letter.mp4", "EXP", "WEIGHTS"], 1, "unsupported_media: the file is no video"),
        (["cut.mp4", "EXP", "WEIGHTS"], 1, "damaged_media: the file breaks off"),
    ],
)
def test_an_error_is_one_line_and_leaves_no_file(
    folder: Path,
    rife: Path,
    esrgan: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    data = clip(folder / "a.mp4", 3, options={"movflags": "faststart"}).read_bytes()
    for name, content in {"empty.mp4": b"", "letter.mp4": b"a letter", "cut.mp4": data[: len(data) // 2]}.items():
        (folder / name).write_bytes(content)
    (folder / "shots").mkdir()
    (folder / "empty").mkdir()
    Image.fromarray(frame(0)).save(folder / "photo.jpg")
    (folder / "cut.jpg").write_bytes((folder / "photo.jpg").read_bytes()[:500])
    (folder / "letter.jpg").write_bytes(b"a letter")
    Image.fromarray(frame(0)).save(folder / "animated.webp", save_all=True, append_images=[Image.fromarray(frame(1))])
    Image.fromarray(frame(0)).save(folder / "shots" / "1.png")
    Image.fromarray(frame(0, 64, 64)).save(folder / "shots" / "2.png")
    before = sorted(path.name for path in folder.iterdir())
    if "EXP" in words and "WEIGHTS" not in words:
        monkeypatch.setattr(command, "load_transforms", lambda _: [])
    stands = {"EXP": "--frame-interpolation-exp=1", "WEIGHTS": f"--frame-interpolation-model-path={rife}"}
    stands |= {"SCALE": "--upscaling-scale=2", "ESRGAN": f"--upscaling-model-path={esrgan}"}

    assert run(["enhance", *(stands.get(word, word) for word in words), "--device=cpu"]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith("vitascope: error: ")
    assert said in told.err
    assert sorted(path.name for path in folder.iterdir()) == before
