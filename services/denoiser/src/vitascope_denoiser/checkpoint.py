"""A checkpoint on disk: found by path, name or Hugging Face id, and checked before anything is loaded from it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vitascope_core.errors import InvalidModel
from vitascope_denoiser.settings import EngineSettings
from vitascope_models.catalogue import embedded

INDEX = "model_index.json"
"""The file that makes a folder a diffusers pipeline: its class and its components."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_NEEDED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
# Second copies of the same weights in another precision, which diffusers would not read.
_VARIANTS = ("*.fp16.safetensors", "*.bf16.safetensors", "*.fp16-*.safetensors", "*.non_ema.safetensors")

# That of the HTTP library inside, which is another one in each of its major versions.
_NETWORK_ERROR: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that holds a diffusers pipeline.

    Attributes:
        folder: Local folder with `INDEX` in it.
        pipeline: Name of the pipeline's class.
        components: The folders in it that are loaded, with the library and the class that each is loaded by.
    """

    folder: Path
    pipeline: str
    components: dict[str, tuple[str, str]]


def find_checkpoint(settings: EngineSettings) -> Checkpoint:
    """Return the checkpoint that ``settings.model_path`` names, downloaded if need be.

    Raises:
        InvalidModel: There is none, it is damaged, or it holds pickled weights or code.
    """
    path = Path(settings.model_path).expanduser()
    if (demo := embedded(settings.model_path)) is not None:
        folder = demo
    elif path.exists():
        folder = path
    elif _HUB_ID.fullmatch(settings.model_path) and not settings.model_path.startswith("."):
        folder = _download(settings.model_path, settings.revision)
    else:
        raise InvalidModel(f"{settings.model_path}: no such folder, and not a Hugging Face id (owner/name)")
    return check_checkpoint(folder)


def check_checkpoint(folder: Path) -> Checkpoint:
    """Return what a folder holds.

    Raises:
        InvalidModel: Something is missing (it is named), is pickled, or is code.
    """
    if not folder.is_dir():
        raise InvalidModel(f"{folder} is not a folder; a diffusers folder with {INDEX} is needed")
    checkpoint = read_index(folder, folder / INDEX)
    # Diffusers would import it, and model folders come from anywhere.
    if code := sorted(str(file.relative_to(folder)) for file in folder.rglob("*.py")):
        raise InvalidModel(f"{folder} brings code of its own ({code[0]}), which is never run")
    for component in checkpoint.components:
        _check_component(folder / component)
    return checkpoint


def read_index(folder: Path, index: Path) -> Checkpoint:
    """Return what an index file says of the pipeline in ``folder``.

    Raises:
        InvalidModel: It is missing or no such index.
    """
    if not index.is_file():
        raise InvalidModel(f"{folder} has no {INDEX}: it is not a diffusers folder")
    content = _read_json(index)
    name = content.get("_class_name")
    if not isinstance(name, str):
        raise InvalidModel(f"{index}: _class_name must be the name of a diffusers pipeline")
    components = {
        key: (str(value[0]), str(value[1]))
        for key, value in content.items()
        if not key.startswith("_") and isinstance(value, list) and len(value) == 2 and all(value)
    }
    # The names become paths and download patterns.
    if odd := [key for key in components if not re.fullmatch(r"\w+", key)]:
        raise InvalidModel(f"{index}: {odd[0]!r} is not the name of a component")
    return Checkpoint(folder, name, components)


def _check_component(folder: Path) -> None:
    """Raise InvalidModel unless the folder is there and its weights, if it is a network's, are whole safetensors."""
    if not folder.is_dir() or not any(folder.iterdir()):
        raise InvalidModel(f"{folder.parent}: the folder {folder.name} that {INDEX} names is missing or empty")
    files = {file.name for file in folder.iterdir() if file.is_file()}
    weights = {name for name in files if name.endswith(".safetensors")}
    pickles = sorted(name for name in files if Path(name).suffix in _PICKLES)
    if pickles and not weights:
        raise InvalidModel(f"{folder / pickles[0]}: pickled weights are never loaded; convert them to safetensors")
    for index in sorted(name for name in files if name.endswith(".safetensors.index.json")):
        shards = _read_json(folder / index).get("weight_map")
        if not isinstance(shards, dict):
            raise InvalidModel(f"{folder / index} has no weight_map")
        if lost := sorted(set(shards.values()) - weights):
            raise InvalidModel(f"{folder}: {lost[0]} is missing")


def _download(model: str, revision: str | None) -> Path:
    """Return the local snapshot of a Hugging Face repository; HF_HUB_OFFLINE and HF_HOME are heeded by the library."""
    at = f"{model} at revision {revision}" if revision else model
    try:
        index = Path(hf_hub_download(model, INDEX, revision=revision))
        components = read_index(index.parent, index).components
        needed = [INDEX, *(f"{component}/{pattern}" for component in components for pattern in _NEEDED)]
        return Path(snapshot_download(model, revision=revision, allow_patterns=needed, ignore_patterns=list(_VARIANTS)))
    except LocalEntryNotFoundError as error:
        raise InvalidModel(f"{at} is not in the local cache and Hugging Face cannot be reached") from error
    except GatedRepoError as error:
        raise InvalidModel(f"{at} is gated: accept its licence on huggingface.co and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise InvalidModel(f"{model} is neither a local folder nor a Hugging Face repository you may read") from error
    except RevisionNotFoundError as error:
        raise InvalidModel(f"{model} has no revision {revision}") from error
    except EntryNotFoundError as error:
        raise InvalidModel(f"{at} has no {INDEX}: it is not a diffusers repository") from error
    except (_NETWORK_ERROR, HFValidationError, OSError) as error:
        raise InvalidModel(f"{at} could not be downloaded: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} does not hold a JSON object")
    return content
