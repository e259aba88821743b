"""Under which conditions a checkpoint was made, as names and short texts: it is used under equal ones only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from vitascope_core.job import DenoiseSpec
from vitascope_denoiser.checkpoint import INDEX, read_index
from vitascope_denoiser.plain import to_plain
from vitascope_denoiser.settings import EngineSettings, Resume
from vitascope_denoiser.snapshot import FORMAT

_SAMPLE_BYTES = 256
"""Bytes of each tensor that tell weights apart: training changes every tensor that it touches nearly everywhere."""

_LENGTH_BYTES = 8
_PIECE_BYTES = 2**20


def fingerprint_of(pipe: Any, settings: EngineSettings) -> dict[str, str]:
    """Return what is the same for all jobs of a loaded pipeline, and on all of its replicas."""
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    dtypes = {name: str(part.dtype).removeprefix("torch.") for name, part in networks.items()}
    return {
        "format": FORMAT,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "pipeline": type(pipe).__name__,
        "model": model_digest(Path(str(pipe.config["_name_or_path"]))),
        "precision": " ".join(f"{name}={dtype}" for name, dtype in sorted(dtypes.items())),
        "device": _device(torch.device(pipe._execution_device), settings.resume),
        "vae": f"tiling={settings.vae_tiling} slicing={settings.vae_slicing}",
    }


def _device(device: torch.device, resume: Resume) -> str:
    """Return what must be equal about the hardware: other GPUs and thread counts round differently."""
    if resume is Resume.CLOSE:
        return device.type
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} with {torch.get_num_threads()} threads"


def for_job(fingerprint: Mapping[str, str], spec: DenoiseSpec) -> dict[str, str]:
    """Return a pipeline's fingerprint with that of a job added: every field of its spec counts."""
    text = json.dumps(to_plain(spec), sort_keys=True)
    return {**fingerprint, "spec": hashlib.sha256(text.encode()).hexdigest()}


def model_digest(folder: Path) -> str:
    """Return a digest of a model's folder: equal for equal copies, wherever they lie.

    Weights are not read whole: their header counts, which names every tensor, and a piece of each tensor.
    """
    digest = hashlib.sha256()
    components = read_index(folder, folder / INDEX).components
    files = [folder / INDEX, *(path for name in sorted(components) for path in sorted((folder / name).rglob("*")))]
    for path in files:
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
            _add_file(digest, path)
    return digest.hexdigest()


def _add_file(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        if path.suffix != ".safetensors":
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
            return
        header = file.read(int.from_bytes(file.read(_LENGTH_BYTES), "little"))
        digest.update(header)
        body = file.tell()
        for name, entry in json.loads(header).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                file.seek(body + begin + max(0, end - begin - _SAMPLE_BYTES) // 2)
                digest.update(file.read(min(_SAMPLE_BYTES, end - begin)))
