"""What the engine is told at start. Plain values: it crosses into the child process."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vitascope_core.errors import InvalidSettings
from vitascope_models.catalogue import DEMO

DEMO_MODEL = DEMO
"""Name of the embedded model, which runs where no other is named."""

_POOL = re.compile(r"[a-z0-9-]{1,40}")


class Device(StrEnum):
    """Where the networks run."""

    AUTO = "auto"
    """The GPU if there is one, else the CPU."""
    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Floating-point format of a network's weights and activations."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class Resume(StrEnum):
    """Where an interrupted job may go on at its checkpoint."""

    EXACT = "exact"
    """Only where the result is the same bit for bit; else it begins anew."""
    CLOSE = "close"
    """Also on another model of GPU, and with pipelines that were not tried: the result may differ a little."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Which model is served, and how it is loaded.

    Attributes:
        model_path: `DEMO_MODEL`, a local diffusers folder, or a Hugging Face id.
        revision: Branch, tag or commit of a Hugging Face id; None for its default branch.
        served_model_name: The model's name towards clients; None for its id or folder name.
        pool: Slug of the pool; None to make it from the model's name.
        device: Where the networks run.
        dit_precision: Format of the transformer and the text encoders; None for bf16 on a GPU, fp32 on a CPU.
        vae_precision: Format of the VAE; None as above.
        vae_tiling: Decode large frames tile by tile: less memory, faint differences where tiles meet.
        vae_slicing: Let the VAE work on one sample at a time.
        load_timeout_s: Longest time that loading may take, download included, before it counts as hung.
        checkpoint_interval: Seconds of denoising between two checkpoints of a job; 0 for no checkpoints at all.
        resume: Where an interrupted job may go on at its checkpoint.

    Raises:
        InvalidSettings: A value is malformed.
    """

    model_path: str = DEMO_MODEL
    revision: str | None = None
    served_model_name: str | None = None
    pool: str | None = None
    device: Device = Device.AUTO
    dit_precision: Precision | None = None
    vae_precision: Precision | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False
    load_timeout_s: float = 3600.0
    checkpoint_interval: float = 20.0
    resume: Resume = Resume.EXACT

    def __post_init__(self) -> None:
        # Configuration files and command lines hold text: "bf16" is taken as well as Precision.BF16.
        object.__setattr__(self, "device", _choice("device", Device, self.device))
        object.__setattr__(self, "resume", _choice("resume", Resume, self.resume))
        for name in ("dit_precision", "vae_precision"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _choice(name, Precision, value))
        if not self.model_path.strip():
            raise InvalidSettings("model_path must name a model")
        if self.pool is not None and not _POOL.fullmatch(self.pool):
            raise InvalidSettings(f"pool must be 1 to 40 of a-z, 0-9 and -, got {self.pool!r}")
        if not self.load_timeout_s > 0:
            raise InvalidSettings(f"load_timeout_s must be above 0, got {self.load_timeout_s:g}")
        if not 0 <= self.checkpoint_interval < math.inf:
            raise InvalidSettings(f"checkpoint_interval must be 0 or more seconds, got {self.checkpoint_interval:g}")

    @property
    def model_name(self) -> str:
        """The model's name as clients write it: as set, else the Hugging Face id, else the local folder's name."""
        if self.served_model_name:
            return self.served_model_name
        folder = Path(self.model_path).expanduser()
        return folder.resolve().name if folder.is_dir() else self.model_path

    @property
    def pool_slug(self) -> str:
        """The pool's slug: as set, else made from the model's name."""
        return self.pool or slug_of(self.model_name)


def slug_of(name: str) -> str:
    """Return ``name`` as a pool slug: lower case, anything but ``[a-z0-9]`` a dash, the last 40 characters.

    The end of a name tells models apart better than its start, which is an organisation or a folder.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug[-40:].strip("-") or "model"


def _choice(field: str, kind: type[StrEnum], value: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError as error:
        raise InvalidSettings(f"{field} must be one of {', '.join(kind)}, got {value!r}") from error
