"""Frame interpolation in one process: the seeds' flags, and what comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from bench.literal_rife import seeded_weights
from vitascope_cli.errors import UsageError
from vitascope_cli.main import run
from vitascope_cli.options import parse
from vitascope_cli.postprocessing import load_transforms
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_models.catalogue import DEMO_ESRGAN, DEMO_RIFE

SERVE = ["serve", "--model-path=testcard"]
GENERATE = ["generate", "--model-path=testcard", "--prompt=A curious raccoon"]
SMALL = ["--size=64x64", "--num-frames=5", "--fps=8", "--output-file-name=a.mp4"]


@pytest.fixture(scope="module")
def rife(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rife")
    torch.save(seeded_weights(RIFE_4_22_LITE.shapes(), seed=1), folder / "flownet.pkl")
    return folder


def test_generate_puts_new_frames_between_frames(rife: Path, tmp_path: Path) -> None:
    flags = ["--enable-frame-interpolation", "--frame-interpolation-exp=2", "--frame_interpolation_scale=0.5"]
    command = [sys.executable, "-m", "vitascope_cli", *GENERATE, *SMALL, *flags, "--device=cpu"]
    command.append(f"--frame-interpolation-model-path={rife}")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "outputs/a.mp4\n")
    with av.open(str(tmp_path / "outputs" / "a.mp4")) as file:
        assert len(list(file.decode(video=0))) == (5 - 1) * 4 + 1
        assert file.streams.video[0].average_rate == 8 * 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--frame-interpolation-exp=1"], 2, "--frame-interpolation-exp needs --enable-frame-interpolation"),
        (["--enable-frame-interpolation", "--frame-interpolation-model-path=https://x/y"], 2, "not a URL"),
        (["--enable-frame-interpolation", "--frame-interpolation-model-path=/no/such"], 1, "/no/such: no such file"),
        (["--enable-frame-interpolation", "--frame-interpolation-exp=5"], 2, "frame_interpolation_exp must be one of"),
        (["--enable-frame-interpolation", "--frame-interpolation-scale=3"], 2, "frame_interpolation_scale must be one"),
        (["--enable-frame-interpolation", "--frame-interpolation-exp=1.5"], 2, "invalid int value: '1.5'"),
    ],
)
def test_wrong_flags_are_one_line(rife: Path, tmp_path: Path, monkeypatch, capsys, words, code, said) -> None:
    monkeypatch.chdir(tmp_path)
    weights = [f"--frame-interpolation-model-path={rife}", "--device=cpu"] if len(words) == 2 else []

    assert run([*GENERATE, *SMALL, *weights, *words]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err


def test_a_server_has_an_interpolator_if_told_so(rife: Path) -> None:
    flags = ["--enable_frame_interpolation", f"--frame-interpolation-model-path={rife}", "--device=cpu"]
    (transform,) = load_transforms(parse([*SERVE, *flags]))

    assert transform[0].models == (str(rife),)
    assert load_transforms(parse(SERVE)) == []
    assert load_transforms(parse([*SERVE, "--no-enable-frame-interpolation"])) == []


def test_a_server_of_the_demo_has_every_stage_unless_told_otherwise() -> None:
    models = [card.models for card, _ in load_transforms(parse(["serve", "--device=cpu"]))]

    assert models == [(DEMO_RIFE,), (DEMO_ESRGAN,)]
    assert len(load_transforms(parse(["serve", "--device=cpu", "--no-enable-upscaling"]))) == 1


def test_the_demo_has_weights_of_its_own_for_what_a_command_line_switches_on() -> None:
    words = ["generate", "--prompt=x", "--device=cpu", "--enable-upscaling"]

    ((demo, _),) = load_transforms(parse(words))

    assert demo.models == (DEMO_ESRGAN,)


def test_a_server_takes_no_flags_of_a_single_request() -> None:
    with pytest.raises(UsageError, match="unknown argument --frame-interpolation-exp"):
        parse(["serve", "--enable-frame-interpolation", "--frame-interpolation-exp=1"])


def test_the_command_starts_without_torch() -> None:
    code = (
        "import sys; from vitascope_cli.main import run; from vitascope_cli.options import parse;"
        "from vitascope_cli.postprocessing import load_transforms;"
        "load_transforms(parse(['serve', '--model-path=testcard']));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
