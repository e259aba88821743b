"""The commands as people run them, in a process of their own."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path

import av
import pytest
from PIL import Image

VITASCOPE = [sys.executable, "-m", "vitascope_cli"]
GENERATE = [*VITASCOPE, "generate", "--model-path=testcard", "--prompt", "A curious raccoon"]
SMALL = ["--size=64x64", "--num-frames=5"]


def run(*words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*words], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_generate_prints_the_path_of_a_file_that_is_there(tmp_path: Path) -> None:
    done = run(*GENERATE, *SMALL, cwd=tmp_path)
    path = tmp_path / done.stdout.strip()

    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"outputs/A_curious_raccoon_\d{8}-\d{6}_[0-9a-f]{8}\.mp4\n", done.stdout)
    with av.open(str(path)) as file:
        assert len(list(file.decode(video=0))) == 5
    assert [p.name for p in (tmp_path / "outputs").iterdir()] == [path.name]


@pytest.mark.parametrize(("name", "kind"), [("cat.png", "PNG"), ("cat.jpg", "JPEG"), ("cat.webp", "WEBP")])
def test_the_files_ending_decides_the_format(tmp_path: Path, name: str, kind: str) -> None:
    done = run(*GENERATE, "--size=64x64", "--output-path", "pictures", "--output-file-name", name, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, f"pictures/{name}\n")
    with Image.open(tmp_path / "pictures" / name) as picture:
        assert picture.format == kind


def test_several_outputs_are_numbered(tmp_path: Path) -> None:
    done = run(*GENERATE, *SMALL, "--num-outputs=2", "--output-file-name=a.mp4", cwd=tmp_path)

    assert done.stdout.split() == ["outputs/a_0.mp4", "outputs/a_1.mp4"]


def test_without_saving_nothing_is_written(tmp_path: Path) -> None:
    done = run(*GENERATE, *SMALL, "--no-save-output", cwd=tmp_path)

    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (0, "", [])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--num-frames=0"], 2, "num_frames must be from 1 to"),
        (["--size=big"], 2, "size must be WIDTHxHEIGHT"),
        (["--output-compression=5"], 2, "output_compression must be an integer from 10 to 100"),
        (["--output-file-name=../x.mp4"], 2, "--output-file-name must be a name without folders"),
        (["--output-file-name=x.gif"], 2, "--output-file-name must end in one of"),
        (["--output-path=/proc/nowhere"], 1, "cannot write to /proc/nowhere"),
        (["--model-path=/no/such/folder"], 1, "no such folder"),
        (["--model-path=vitascope/demo", "--testcard-step-s=1"], 2, "need --model-path testcard"),
        (["--unknown"], 2, "unknown argument --unknown"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    done = run(*GENERATE, *words, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("vitascope: error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_setting_in_the_environment_is_refused_at_start(tmp_path: Path) -> None:
    done = run(*VITASCOPE, "serve", cwd=tmp_path, env={**os.environ, "VITASCOPE_WORKER_HEARTBEAT_S": "20"})

    assert done.returncode == 2
    assert "heartbeat_s=20 must be at most a third of ack_wait_s" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(*VITASCOPE, "serve", f"--port={port}", f"--state-dir={tmp_path}", cwd=tmp_path)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


def test_progress_is_shown_on_a_terminal(tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [*GENERATE, *SMALL, "--testcard-step-s=0.3", "--testcard-chunk-s=0.3"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(screen)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert b"%" in shown
    assert b"denoising" in shown
    assert out.decode().strip().endswith(".mp4")


def test_ctrl_c_ends_generate_and_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    command = [*GENERATE, "--testcard-step-s=300", "--log-level=debug"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not any((tmp_path / "tmp").glob("vitascope-*/jobs.db")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()

    assert (process.returncode, out) == (130, "")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((tmp_path / "outputs").iterdir()) == []


def test_the_doctor_tells_a_wrong_setting_as_a_problem(tmp_path: Path) -> None:
    env = {**os.environ, "VITASCOPE_S3_ENDPOINT": "http://store/path"}
    done = run(*VITASCOPE, "doctor", cwd=tmp_path, env=env)

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("problem  settings  VITASCOPE_S3_ENDPOINT")
