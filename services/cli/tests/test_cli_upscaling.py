"""Upscaling in one process: the seeds' flags, and what comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from bench.literal_esrgan import seeded_weights, upscale
from bench.literal_rife import seeded_weights as rife_weights
from vitascope_cli.errors import UsageError
from vitascope_cli.main import run
from vitascope_cli.options import parse
from vitascope_cli.postprocessing import load_transforms
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.settings import SCALES

GENERATE = ["generate", "--model-path=testcard", "--prompt=A curious raccoon", "--device=cpu", "--seed=7"]
SMALL = ["--size=64x48", "--num-frames=4", "--fps=8"]
RRDB = Rrdb(8, 1, 4, 1, 2)


@pytest.fixture(scope="module")
def esrgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("esrgan") / "x4.pth"
    torch.save({"params_ema": seeded_weights(RRDB.shapes(), 1)}, path)
    return path


@pytest.mark.parametrize(("flag", "scale"), [([], 4), (["--upscaling_scale=1.5"], 1.5)])
def test_a_picture_is_enlarged_as_the_literal_procedure_does(
    esrgan: Path, tmp_path: Path, monkeypatch, flag, scale
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*GENERATE, "--size=64x48", "--num-frames=1"]
    on = ["--enable-upscaling", f"--upscaling-model-path={esrgan}", *flag]

    assert run([*words, "--output-file-name=a.png"]) == run([*words, *on, "--output-file-name=b.png"]) == 0
    plain, large = (np.array(Image.open(tmp_path / "outputs" / name)) for name in ("a.png", "b.png"))
    expected = upscale(seeded_weights(RRDB.shapes(), 1), plain[None], scale)[0]
    assert large.shape == expected.shape == (int(48 * scale), int(64 * scale), 3)
    assert np.abs(large.astype(int) - expected).max() <= 1


def test_a_clip_is_interpolated_and_enlarged(esrgan: Path, tmp_path: Path) -> None:
    torch.save(rife_weights(RIFE_4_22_LITE.shapes(), seed=1), tmp_path / "flownet.pkl")
    between = ["--enable-frame-interpolation", f"--frame-interpolation-model-path={tmp_path}"]
    larger = ["--enable-upscaling", "--upscaling-scale=3", f"--upscaling-model-path={esrgan}"]
    command = [sys.executable, "-m", "vitascope_cli", *GENERATE, *SMALL, *between, *larger, "--output-file-name=a.mp4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "outputs/a.mp4\n")
    with av.open(str(tmp_path / "outputs" / "a.mp4")) as file:
        frames = list(file.decode(video=0))
        assert [(frame.width, frame.height) for frame in frames] == [(192, 144)] * 7
        assert file.streams.video[0].average_rate == 16


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--upscaling-scale=2"], 2, "--upscaling-scale needs --enable-upscaling"),
        (["--enable-upscaling", "--upscaling-model-path=https://x/y"], 2, "not a URL"),
        (["--enable-upscaling", "--upscaling-model-path=/no/such"], 1, "/no/such: no such file"),
        (["--enable-upscaling", "--upscaling-scale=0"], 2, "--upscaling-scale must be from 1 to 8, got 0"),
        (["--enable-upscaling", "--upscaling-scale=8.5"], 2, "--upscaling-scale must be from 1 to 8, got 8.5"),
        (["--enable-upscaling", "--upscaling-scale=nan"], 2, "--upscaling-scale must be from 1 to 8, got nan"),
        (["--enable-upscaling", "--upscaling-scale=large"], 2, "invalid float value: 'large'"),
    ],
)
def test_wrong_flags_are_one_line(esrgan: Path, tmp_path: Path, monkeypatch, capsys, words, code, said) -> None:
    monkeypatch.chdir(tmp_path)
    weights = [] if any("model-path" in word for word in words) else [f"--upscaling-model-path={esrgan}"]

    assert run([*GENERATE, *SMALL, *(weights if "--enable-upscaling" in words else []), *words]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err


def test_a_server_has_an_upscaler_if_told_so(tmp_path: Path) -> None:
    path = tmp_path / "compact.pth"
    torch.save(seeded_weights(Compact(8, 1, 4).shapes(), 1), path)
    words = ["serve", "--model-path=testcard", "--enable_upscaling", f"--upscaling-model-path={path}", "--device=cpu"]
    ((card, _),) = load_transforms(parse(words))

    assert (card.models, card.scales) == ((str(path),), SCALES)
    assert load_transforms(parse(words[:2])) == []
    assert load_transforms(parse([*words[:2], "--no-enable-upscaling"])) == []


def test_a_server_takes_no_flags_of_a_single_request() -> None:
    with pytest.raises(UsageError, match="unknown argument --upscaling-scale"):
        parse(["serve", "--enable-upscaling", "--upscaling-scale=2"])
