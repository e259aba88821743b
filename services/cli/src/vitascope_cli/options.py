"""The command line: what each command takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from vitascope_cli.errors import UsageError
from vitascope_cli.file_formats import ENDINGS
from vitascope_cli.flags import Parser, configured, dashed, unknown
from vitascope_core.quality import QUALITIES
from vitascope_denoiser.settings import DEMO_MODEL, Device, Precision, Resume
from vitascope_interpolator.settings import DEFAULT_MODEL as DEFAULT_RIFE
from vitascope_upscaler.settings import DEFAULT_MODEL as DEFAULT_ESRGAN

DEFAULT_PORT = 30010
TESTCARD = "testcard"

DESCRIPTION = "Image and video diffusion models, served split by stage. Here: every stage in one process."


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of a command line; ``command`` is "generate", "enhance", "serve" or "doctor".

    Dashes and underscores in flags mean the same. Values of ``--config`` count as if they stood before the rest.

    Raises:
        UsageError: Something is unknown, malformed or missing.
        SystemExit: For ``--help`` and ``--version``.
    """
    parser, commands = _parsers()
    words = [dashed(word) for word in arguments]
    if words and words[0] in commands:
        command = commands[words[0]]
        for word in words[1:]:
            # Before argparse: it would rather complain that a required flag is missing than that it is misspelt.
            name = word.partition("=")[0]
            if name.startswith("--") and name not in command.flags:
                raise UsageError(unknown("argument", name, command.flags))
        words = [words[0], *configured(words[1:], command), *words[1:]]
    return parser.parse_args(words)


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(prog="vitascope", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"vitascope {version('vitascope-cli')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=Parser)
    generate = commands.add_parser("generate", help="make one image or video and exit", description=_generate.__doc__)
    serve = commands.add_parser("serve", help="serve the OpenAI API over HTTP", description=_serve.__doc__)
    enhance = commands.add_parser("enhance", help="process an existing file and exit", description=_enhance.__doc__)
    doctor = commands.add_parser("doctor", help="look at a cluster and say what is wrong", description=_doctor.__doc__)
    for command in (generate, serve):
        _common(command)
        _log_level(command, "warning")
    _log_level(enhance, "error")
    _log_level(doctor, "error")
    _generate(generate)
    _enhance(enhance)
    _serve(serve)
    _doctor(doctor)
    return parser, {"generate": generate, "enhance": enhance, "serve": serve, "doctor": doctor}


def _log_level(parser: argparse.ArgumentParser, default: str) -> None:
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, default=default, help="least level logged")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON or YAML file with flags as keys")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model-path",
        default=DEMO_MODEL,
        metavar="MODEL",
        help=f"diffusers folder, Hugging Face id, {DEMO_MODEL}, or {TESTCARD} for drawn test pictures",
    )
    model.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    model.add_argument(
        "--served-model-name", "--model-id", metavar="NAME", help="name of the model towards clients, if another"
    )
    model.add_argument("--device", choices=tuple(Device), default=Device.AUTO.value, help="where the model runs")
    model.add_argument(
        "--dit-precision", "--precision", choices=tuple(Precision), help="of the transformer; by default fp32 on a CPU"
    )
    model.add_argument("--vae-precision", choices=tuple(Precision), help="of the VAE; by default fp32 on a CPU")
    model.add_argument("--vae-tiling", action=argparse.BooleanOptionalAction, default=False, help="decode in tiles")
    model.add_argument(
        "--vae-slicing", action=argparse.BooleanOptionalAction, default=False, help="decode sample by sample"
    )
    model.add_argument(
        "--checkpoint-interval",
        type=_seconds,
        default=20.0,
        metavar="S",
        help="denoising time between two checkpoints of a job; 0 for none",
    )
    model.add_argument(
        "--resume",
        choices=tuple(Resume),
        default=Resume.EXACT.value,
        help="whether an interrupted job goes on only where that changes no bit",
    )
    card = parser.add_argument_group(f"model {TESTCARD}")
    card.add_argument("--testcard-step-s", type=_seconds, default=0.0, metavar="S", help="time that a step takes")
    card.add_argument("--testcard-chunk-s", type=_seconds, default=0.0, metavar="S", help="time that a chunk takes")


def _frame_interpolation(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    between = parser.add_argument_group("frame interpolation (RIFE)")
    between.add_argument(
        "--enable-frame-interpolation", action=argparse.BooleanOptionalAction, help="put new frames between frames"
    )
    between.add_argument(
        "--frame-interpolation-model-path",
        metavar="WEIGHTS",
        help=f"file, folder with flownet.pkl, or Hugging Face id; by default {DEFAULT_RIFE}, or the demo's",
    )
    return between


def _frame_interpolation_of_one(parser: argparse.ArgumentParser) -> None:
    between = _frame_interpolation(parser)
    between.add_argument("--frame-interpolation-exp", type=int, metavar="EXP", help="doublings of the rate, 1 to 4")
    between.add_argument(
        "--frame-interpolation-scale", type=float, metavar="SCALE", help="0.25, 0.5, 1, 2 or 4; 0.5 for large frames"
    )


def _upscaling(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    larger = parser.add_argument_group("upscaling (Real-ESRGAN)")
    larger.add_argument("--enable-upscaling", action=argparse.BooleanOptionalAction, help="enlarge every frame")
    larger.add_argument(
        "--upscaling-model-path",
        metavar="WEIGHTS",
        help=f"file, folder with RealESRGAN_x4.pth, or Hugging Face id; by default {DEFAULT_ESRGAN}, or the demo's",
    )
    return larger


def _upscaling_of_one(parser: argparse.ArgumentParser) -> None:
    larger = _upscaling(parser)
    larger.add_argument("--upscaling-scale", type=float, metavar="SCALE", help="1 to 8, also 1.5; without it 4")


def _generate(parser: argparse.ArgumentParser) -> None:
    """Make one image or video, print the path of each file, and exit."""
    what = parser.add_argument_group("what to make")
    what.add_argument("--prompt", required=True, help="description of the image or video")
    what.add_argument("--negative-prompt", help="what to keep away from")
    what.add_argument("--size", metavar="WxH", help="width and height in one")
    what.add_argument("--width", type=int, help="pixels")
    what.add_argument("--height", type=int, help="pixels")
    what.add_argument("--num-frames", type=int, help="frames of a video")
    what.add_argument("--seconds", type=float, help="length of a video, if not given in frames")
    what.add_argument("--fps", type=float, help="frames a second of a video")
    what.add_argument("--num-inference-steps", type=int, help="denoising steps")
    what.add_argument("--guidance-scale", type=float, help="how closely the prompt is followed")
    what.add_argument("--guidance-scale-2", type=float, help="the same, for the second transformer")
    what.add_argument("--seed", type=int, help="the same seed makes the same result; by default a random one")
    what.add_argument("--num-outputs", "--n", type=int, dest="n", help="how many to make")
    _frame_interpolation_of_one(parser)
    _upscaling_of_one(parser)
    file = parser.add_argument_group("the file")
    file.add_argument("--output-path", type=Path, default=Path("outputs"), metavar="DIR", help="folder of the file")
    file.add_argument("--output-file-name", metavar="NAME", help="name of the file; its ending decides the format")
    file.add_argument("--output-quality", choices=QUALITIES, help="quality by name")
    file.add_argument("--output-compression", type=int, metavar="0-100", help="quality by number; wins over the name")
    file.add_argument(
        "--save-output", action=argparse.BooleanOptionalAction, default=True, help="keep the file; without, only try"
    )


def _enhance(parser: argparse.ArgumentParser) -> None:
    """Process an existing video, picture or folder of pictures, print the path of the file, and exit."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON or YAML file with flags as keys")
    parser.add_argument("input", type=Path, metavar="INPUT", help="video, picture, or folder of pictures")
    parser.add_argument("--fps", type=float, help="pictures a second of a folder")
    parser.add_argument("--device", choices=tuple(Device), default=Device.AUTO.value, help="where the models run")
    _frame_interpolation_of_one(parser)
    _upscaling_of_one(parser)
    file = parser.add_argument_group("the file")
    file.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="without it <name of the input>-enhanced in this folder"
    )
    file.add_argument(
        "--output-format",
        choices=tuple(ENDINGS),
        help="where --output does not say it; by default mp4 of a video, png of a picture",
    )
    file.add_argument(
        "--overwrite", action=argparse.BooleanOptionalAction, default=False, help="replace a file that is there"
    )
    file.add_argument("--output-quality", choices=QUALITIES, help="quality by name")
    file.add_argument("--output-compression", type=int, metavar="0-100", help="by number, videos from 10; wins")


def _serve(parser: argparse.ArgumentParser) -> None:
    """Serve the OpenAI API. Jobs survive a restart: finished ones stay, unfinished ones run again."""
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on")
    server.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port to listen on; 0 for any free one")
    server.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="folder of jobs and results; by default the user's state folder"
    )
    _frame_interpolation(parser)
    _upscaling(parser)


def _doctor(parser: argparse.ArgumentParser) -> None:
    """Look at broker and stores of a cluster as a service would, with the environment of the services."""
    parser.add_argument("--pool", action="append", default=[], help="a pool that must be there; repeatable")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")


def _port(text: str) -> int:
    if text.isdecimal() and 0 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be from 0 to 65535, got {text!r}")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value < 3600:
        return value
    raise argparse.ArgumentTypeError(f"must be seconds from 0 to 3600, got {text!r}")
