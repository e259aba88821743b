"""``vitascope enhance``: an existing video, picture or folder of pictures, through the transforms in this process."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vitascope_cli.errors import OK, CommandFailed, UsageError
from vitascope_cli.file_formats import ENDINGS, FORMATS, PICTURES, VIDEO
from vitascope_cli.job_run import copy_result, run_job
from vitascope_cli.node import Node, NodeSettings, Transforms, running
from vitascope_cli.postprocessing import load_transforms
from vitascope_core.errors import InvalidRequest, Stopped
from vitascope_core.job import JobSpec
from vitascope_frames.media_file import MAX_FPS, MediaLimits
from vitascope_frames.picture_file import is_picture
from vitascope_frames.picture_folder import pack_pictures, pictures_in
from vitascope_gateway.enhancement import admit_enhancement
from vitascope_gateway.fields import Fields
from vitascope_gateway.ingestion import Given
from vitascope_gateway.picture_enhancement import admit_picture

INPUT = "input"
"""What the command line calls the file."""

FIELDS = (
    "enable_frame_interpolation",
    "frame_interpolation_exp",
    "frame_interpolation_scale",
    "frame_interpolation_model_path",
    "enable_upscaling",
    "upscaling_scale",
    "upscaling_model_path",
    "output_quality",
    "output_compression",
)
"""Options that are request fields of the same name."""

SWITCHES = {
    "enable_frame_interpolation": (
        "frame_interpolation_exp",
        "frame_interpolation_scale",
        "frame_interpolation_model_path",
    ),
    "enable_upscaling": ("upscaling_scale", "upscaling_model_path"),
}
"""What switches a transform on: here any of its options does, since nothing else can be meant."""


async def enhance(options: argparse.Namespace, settings: NodeSettings) -> int:
    """Process what the options name, print the path of the file, and return the exit code.

    Raises:
        UsageError: The options contradict each other, or the file is there already.
        CommandFailed: The input cannot be read, the job failed, or its file cannot be written.
        InvalidWeights, DeviceOutOfMemory: See `load_transforms`.
    """
    picture = _is_picture(options.input)
    _switch_on(options, picture=picture)
    target = _target(options, picture=picture)
    shots = _shots(options)
    transforms = await asyncio.to_thread(load_transforms, options)
    with tempfile.TemporaryDirectory(prefix="vitascope-") as name:
        staged = Path(name) / "input"
        if shots is None:
            await asyncio.to_thread(_stage, options.input, staged)
        else:
            await _pack(shots, Fraction(str(options.fps)), staged, settings.ingest.options.limits)
        async with running(Path(name), Transforms(transforms), settings) as node:
            given = Given(options.input.name, staged.stat().st_size, INPUT)
            spec = _admit(node, options, given, target, picture=picture)
            end = await run_job(node, spec, _phase, file=staged, lines=True)
            made = next(file for file in end.files if file.variant == str(spec.kind))
            print(await copy_result(node, made, target))
    return OK


def _is_picture(source: Path) -> bool:
    """Whether the input is a still picture, rather than a video or a folder."""
    if not source.exists():
        raise CommandFailed(f"cannot read {source}: there is no such file or folder")
    try:
        return not source.is_dir() and is_picture(source)
    except OSError as error:
        raise CommandFailed(f"cannot read {source}: {error.strerror}") from error


def _switch_on(options: argparse.Namespace, *, picture: bool) -> None:
    for switch, its_options in SWITCHES.items():
        said = [name for name in its_options if getattr(options, name) is not None]
        if said and getattr(options, switch) is None:
            setattr(options, switch, True)
        elif said and not getattr(options, switch):
            raise UsageError(f"{_flag(said[0])} contradicts --no-{switch.replace('_', '-')}")
    if picture:
        _switch_on_for_picture(options)
    if not any(getattr(options, switch) for switch in SWITCHES):
        raise UsageError("nothing to do: ask for --frame-interpolation-exp or --upscaling-scale")


def _switch_on_for_picture(options: argparse.Namespace) -> None:
    switch = "enable_frame_interpolation"
    if getattr(options, switch):
        stray = next((name for name in SWITCHES[switch] if getattr(options, name) is not None), switch)
        raise UsageError(f"{_flag(stray)} is for videos: {options.input} is a picture, which has a single frame")
    if options.enable_upscaling is None:
        options.enable_upscaling = True  # there is nothing else to be done with it


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _target(options: argparse.Namespace, *, picture: bool) -> Path:
    """Return where the file goes; before the work, since to find out afterwards would be a pity."""
    target: Path = options.output or Path(f"{options.input.resolve().stem}-enhanced{_ending(options, picture=picture)}")
    _check_format(options, target, picture=picture)
    if target.exists():
        if not target.is_file():
            raise UsageError(f"{target} is no file")
        if target.resolve() == options.input.resolve():
            raise UsageError(f"{target} is the input itself; name another with --output")
        if not options.overwrite:
            raise UsageError(f"{target} is there already; name another with --output, or say --overwrite")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise CommandFailed(f"cannot write to {target.parent}: {error.strerror}") from error
    return target


def _ending(options: argparse.Namespace, *, picture: bool) -> str:
    return ENDINGS[options.output_format or ("png" if picture else "mp4")]


def _check_format(options: argparse.Namespace, target: Path, *, picture: bool) -> None:
    """Refuse a name and a format that contradict each other, or what the input is."""
    fitting, ending = PICTURES if picture else VIDEO, target.suffix.lower()
    if options.output_format not in (None, *fitting.values()):
        allowed = " or ".join(dict.fromkeys(fitting.values()))
        what = "a picture" if picture else "a video"
        raise UsageError(f"--output-format must be {allowed} for {what}, got {options.output_format}")
    if ending not in fitting:
        raise UsageError(f"--output must end in {' or '.join(fitting)}, got {str(target)!r}")
    if options.output_format not in (None, fitting[ending]):
        raise UsageError(f"--output-format {options.output_format} contradicts --output {target}")


def _shots(options: argparse.Namespace) -> list[Path] | None:
    """Return the pictures of a folder, None for a file."""
    if not options.input.is_dir():
        if options.fps is not None:
            raise UsageError("--fps is for folders of pictures: a video has a frame rate of its own")
        return None
    if options.fps is None:
        raise UsageError("a folder of pictures needs --fps")
    if not 0 < options.fps <= MAX_FPS:
        raise UsageError(f"--fps must be more than 0 and at most {MAX_FPS}, got {options.fps:g}")
    return pictures_in(options.input)


async def _pack(pictures: list[Path], fps: Fraction, staged: Path, limits: MediaLimits) -> None:
    """Pack the pictures in a thread, which ends with this call, showing on a terminal how far it is."""
    over = threading.Event()
    with tqdm(total=len(pictures), disable=not sys.stderr.isatty(), desc="packing", leave=False) as bar:

        def packed() -> None:
            if over.is_set():
                raise Stopped("nobody waits for it any more")
            bar.update()

        try:
            await asyncio.to_thread(pack_pictures, pictures, fps, staged, packed, limits=limits)
        finally:
            over.set()


def _stage(source: Path, staged: Path) -> None:
    """Make the input a file that may be moved away: a link where that is possible, else a copy."""
    try:
        try:
            staged.hardlink_to(source.resolve())
        except OSError:
            shutil.copyfile(source, staged)
    except OSError as error:
        raise CommandFailed(f"cannot read {source}: {error.strerror}") from error


def _admit(node: Node, options: argparse.Namespace, given: Given, target: Path, *, picture: bool) -> JobSpec:
    values: dict[str, Any] = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    values["output_format"] = FORMATS[target.suffix.lower()]
    admit = admit_picture if picture else admit_enhancement
    try:
        catalogue, clock = node.board.catalogue, node.platform.clock
        return admit(Fields(values), given, catalogue, "", clock, node.settings.gateway)
    except InvalidRequest as error:
        if not given.size:
            raise CommandFailed(f"{options.input} is empty") from error
        raise UsageError(str(error)) from error


def _phase(progress: int) -> str:
    return "reading" if progress == 0 else "enhancing"
