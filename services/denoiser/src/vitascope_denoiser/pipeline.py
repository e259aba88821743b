"""Loading a checkpoint as a live diffusers pipeline."""

from __future__ import annotations

import threading
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from vitascope_core.errors import DeviceOutOfMemory, InvalidModel, InvalidSettings
from vitascope_denoiser.checkpoint import Checkpoint, find_checkpoint
from vitascope_denoiser.settings import Device, EngineSettings, Precision

_DTYPES = {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def load(settings: EngineSettings) -> Any:
    """Return the pipeline that the settings name, on its device, ready to be called.

    Raises:
        InvalidModel: It is missing, damaged, of an unknown class, or cannot do what the settings ask.
        InvalidSettings: There is no such device here.
        DeviceOutOfMemory: It does not fit.
    """
    device = device_of(settings)
    _quieten()
    checkpoint = find_checkpoint(settings)
    usual = Precision.BF16 if device.type == "cuda" else Precision.FP32
    dtypes = {
        "default": _DTYPES[settings.dit_precision or usual],
        "vae": _DTYPES[settings.vae_precision or usual],
    }
    pipe = _open(checkpoint, dtypes)
    _check_weights(pipe, checkpoint)
    _set_up_vae(pipe, settings)
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(device)
    except torch.OutOfMemoryError as error:
        raise DeviceOutOfMemory(f"{checkpoint.pipeline} does not fit on {device}") from error


def device_of(settings: EngineSettings) -> torch.device:
    """Return the device that the networks run on.

    Raises:
        InvalidSettings: A GPU is asked for and torch sees none.
    """
    available = torch.cuda.is_available()
    if settings.device is Device.CUDA and not available:
        raise InvalidSettings("device is cuda, but torch sees no GPU")
    return torch.device("cuda" if available and settings.device is not Device.CPU else "cpu")


def _quieten() -> None:
    # Besides progress bars that no log can use: their warnings repeat prompts, cut off ends for example.
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    # Else the first bar makes a lock for other processes, which one that is killed leaves behind.
    tqdm.set_lock(threading.RLock())


def _open(checkpoint: Checkpoint, dtypes: dict[str, torch.dtype]) -> Any:
    # The class itself, not DiffusionPipeline: that one drops component overrides of some pipelines without a word.
    kind: Any = getattr(diffusers, checkpoint.pipeline, None)
    served = isinstance(kind, type) and issubclass(kind, DiffusionPipeline)
    if not served:
        raise InvalidModel(f"{checkpoint.pipeline} is not a pipeline of diffusers {diffusers.__version__}")
    safely = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    try:
        encoders = _open_encoders(checkpoint, dtypes, safely)
        return kind.from_pretrained(checkpoint.folder, dtype=dtypes, **safely, **encoders)
    except torch.OutOfMemoryError as error:
        raise DeviceOutOfMemory(f"{checkpoint.pipeline} does not fit in memory") from error
    # What diffusers, transformers and safetensors raise for folders that do not fit together.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, SafetensorError) as e:
        raise InvalidModel(f"{checkpoint.folder} cannot be loaded as {checkpoint.pipeline}: {e}") from e


def _open_encoders(checkpoint: Checkpoint, dtypes: dict[str, torch.dtype], safely: dict[str, bool]) -> dict[str, Any]:
    """Return the networks of transformers, which fills weights that the files lack with noise and goes on."""
    networks: dict[str, Any] = {}
    for name, (library, class_name) in checkpoint.components.items():
        kind: Any = getattr(transformers, class_name, None) if library == "transformers" else None
        is_network = isinstance(kind, type) and issubclass(kind, PreTrainedModel)
        if not is_network:
            continue
        dtype = dtypes.get(name, dtypes["default"])
        folder = checkpoint.folder / name
        networks[name], told = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, **safely)
        if lost := sorted(told["missing_keys"]):
            raise InvalidModel(f"{folder} has no weight {lost[0]}")
    return networks


def _check_weights(pipe: Any, checkpoint: Checkpoint) -> None:
    """Raise InvalidModel if a weight was not in the files: it has no data then, and would fail in the first request."""
    for name, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            lost = next((key for key, weight in component.named_parameters() if weight.is_meta), None)
            if lost is not None:
                raise InvalidModel(f"{checkpoint.folder / name} has no weight {lost}")


def _set_up_vae(pipe: Any, settings: EngineSettings) -> None:
    vae = getattr(pipe, "vae", None)
    for flag, wanted in (("tiling", settings.vae_tiling), ("slicing", settings.vae_slicing)):
        if not wanted:
            continue
        try:
            getattr(vae, f"enable_{flag}")()
        except (AttributeError, NotImplementedError) as error:
            raise InvalidModel(f"the VAE {type(vae).__name__} has no {flag}; leave vae_{flag} out") from error
