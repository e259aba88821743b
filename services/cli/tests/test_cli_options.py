"""The command line: what is taken, what is refused, and how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitascope_cli.errors import UsageError
from vitascope_cli.options import parse


def test_defaults() -> None:
    options = parse(["serve"])

    assert (options.host, options.port, options.model_path) == ("127.0.0.1", 30010, "vitascope/demo")


def test_the_doctor_takes_no_model_and_no_configuration_file() -> None:
    assert parse(["doctor", "--json", "--pool", "a", "--pool=b"]).pool == ["a", "b"]
    for flag in ("--model-path=x", "--config=x.yaml"):
        with pytest.raises(UsageError, match="unknown argument"):
            parse(["doctor", flag])


def test_dashes_and_underscores_mean_the_same() -> None:
    options = parse(["generate", "--prompt=a_b --c", "--num_frames", "9", "--vae_tiling"])

    assert (options.prompt, options.num_frames, options.vae_tiling) == ("a_b --c", 9, True)


def test_the_checkpoint_interval_is_seconds() -> None:
    intervals = [parse(["serve", *words]).checkpoint_interval for words in ([], ["--checkpoint-interval", "2.5"])]

    assert intervals == [20.0, 2.5]
    with pytest.raises(UsageError, match="must be seconds"):
        parse(["serve", "--checkpoint-interval=-1"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "--prmpt", "x"], "unknown argument --prmpt; did you mean --prompt?"),
        (["generate", "--prompt", "x", "--num-frame=9"], "did you mean --num-frames?"),
        (["serve", "--zzzzzz"], "see --help"),
        (["generate"], "--prompt"),
        (["generate", "--prompt", "x", "--num-frames", "nine"], "invalid int value: 'nine'"),
        (["serve", "--port", "70000"], "from 0 to 65535"),
        (["serve", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["paint"], "invalid choice: 'paint'"),
        ([], "command"),
        (["generate", "--prompt", "x", "extra"], "unrecognized arguments: extra"),
        (["serve", "--testcard-step-s", "-1"], "seconds from 0 to 3600"),
    ],
)
def test_wrong_usage_is_told(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", json.dumps({"prompt": "from file", "num_frames": 9, "vae_tiling": True, "seed": None, "fps": 12.5})),
        ("c.yaml", "prompt: from file\nnum-frames: 9\nvae_tiling: true\nseed: null\nfps: 12.5\n"),
    ],
)
def test_a_configuration_file_sets_flags(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    options = parse(["generate", "--config", str(tmp_path / name)])

    assert (options.prompt, options.num_frames, options.vae_tiling, options.seed, options.fps) == (
        "from file",
        9,
        True,
        None,
        12.5,
    )


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"prompt": "from file", "num_frames": 9, "vae_tiling": true}')
    options = parse(["generate", "--prompt", "here", f"--config={tmp_path / 'c.json'}", "--no-vae-tiling"])

    assert (options.prompt, options.num_frames, options.vae_tiling) == ("here", 9, False)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", '{"promt": "x"}', "unknown key promt; did you mean prompt?"),
        ("c.json", "{", "not valid"),
        ("c.yaml", "a: [", "not valid"),
        ("c.toml", "", "must end in .json, .yaml or .yml"),
        ("c.json", "[1]", "one object"),
        ("c.json", '{"vae_tiling": "yes"}', "vae_tiling must be true or false"),
        ("c.json", '{"prompt": ["a"]}', "prompt must be a single value"),
        ("c.json", '{"num_frames": "many"}', "invalid int value"),
        ("missing.json", None, "cannot read"),
    ],
)
def test_a_wrong_configuration_file_is_told(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        parse(["generate", "--config", str(tmp_path / name)])

    assert said in str(caught.value)


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["serve", "--help"], ["--version"]])
def test_help_is_printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(words)

    assert caught.value.code == 0
    assert "vitascope" in capsys.readouterr().out
