"""``vitascope generate``: one job through every stage in this process."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vitascope_cli.errors import OK, CommandFailed, UsageError
from vitascope_cli.file_formats import ENDINGS, FORMATS
from vitascope_cli.job_run import copy_result, run_job
from vitascope_cli.model import loaded
from vitascope_cli.node import Node, NodeSettings, running
from vitascope_core.card import Mode, ModelCard
from vitascope_core.errors import InvalidRequest
from vitascope_core.job import JobEnd, JobKind, JobSpec
from vitascope_gateway.admission import admit_image, admit_video
from vitascope_gateway.fields import Fields

FIELDS = (
    "prompt",
    "negative_prompt",
    "size",
    "width",
    "height",
    "num_frames",
    "seconds",
    "fps",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "seed",
    "n",
    "output_quality",
    "output_compression",
    "enable_frame_interpolation",
    "frame_interpolation_exp",
    "frame_interpolation_scale",
    "frame_interpolation_model_path",
    "enable_upscaling",
    "upscaling_scale",
    "upscaling_model_path",
)
"""Options that are request fields of the same name."""


async def generate(options: argparse.Namespace, settings: NodeSettings) -> int:
    """Make what the options say, print the path of each file, and return the exit code.

    Raises:
        UsageError: An option is outside what the model supports.
        CommandFailed: The job failed, or its file cannot be written.
    """
    wanted = _format(options.output_file_name)
    if options.save_output:
        _check_folder(options.output_path)
    if sys.stderr.isatty():
        print(f"loading {options.model_path} …", end="\r", file=sys.stderr, flush=True)
    async with loaded(options) as stages:
        kind = _kind(stages.card, wanted)
        with tempfile.TemporaryDirectory(prefix="vitascope-") as folder:
            async with running(Path(folder), stages, settings) as node:
                spec = _admit(node, options, kind, wanted)
                end = await run_job(node, spec, _phase)
                if options.save_output:
                    for path in await _save(node, spec, end, options):
                        print(path)
    return OK


def _format(name: str | None) -> str | None:
    if name is None:
        return None
    if Path(name).name != name:
        raise UsageError("--output-file-name must be a name without folders; the folder is --output-path")
    ending = Path(name).suffix.lower()
    if ending not in FORMATS:
        raise UsageError(f"--output-file-name must end in one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[ending]


def _check_folder(folder: Path) -> None:
    """Make the folder now: to find out after the work that it cannot be written would be a pity."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CommandFailed(f"cannot write to {folder}: {error.strerror}") from error


def _kind(card: ModelCard, wanted: str | None) -> JobKind:
    if wanted is None:
        return JobKind.VIDEO if Mode.TEXT_TO_VIDEO in card.modes else JobKind.IMAGE
    return JobKind.VIDEO if wanted == "mp4" else JobKind.IMAGE


def _admit(node: Node, options: argparse.Namespace, kind: JobKind, wanted: str | None) -> JobSpec:
    values: dict[str, Any] = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    if wanted is not None:
        values["output_format"] = wanted
    admit = admit_video if kind is JobKind.VIDEO else admit_image
    try:
        return admit(Fields(values), node.board.catalogue, "", node.platform.clock, node.settings.gateway)
    except InvalidRequest as error:
        raise UsageError(str(error)) from error


def _phase(progress: int) -> str:
    if progress == 0:
        return "starting"
    return "denoising" if progress < 80 else "decoding"


async def _save(node: Node, spec: JobSpec, end: JobEnd, options: argparse.Namespace) -> list[Path]:
    """Copy the finished files to the output folder and return where they lie."""
    files = [file for file in end.files if file.variant in ("video", "image")]
    stem, ending = _name(spec, options.output_file_name)
    paths = []
    for file in files:
        number = f"_{file.output}" if len(files) > 1 else ""
        paths.append(await copy_result(node, file, options.output_path / f"{stem}{number}{ending}"))
    return paths


def _name(spec: JobSpec, given: str | None) -> tuple[str, str]:
    """Return stem and ending of the file: as given, else from prompt, time and settings."""
    if given is not None:
        return Path(given).stem, Path(given).suffix
    prompt = re.sub(r"[^A-Za-z0-9._-]+", "_", spec.denoise.prompt[:100]).strip("._-") or "output"
    digest = hashlib.sha256(repr(spec.denoise).encode()).hexdigest()[:8]
    return f"{prompt}_{time.strftime('%Y%m%d-%H%M%S')}_{digest}", ENDINGS[spec.output.format]
