"""The stage: a chunk in, the chunk with larger frames out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidRequest, InvalidSettings
from vitascope_core.plan import Options, StageName, UpscaleOptions
from vitascope_frames.chunk import Chunk, Frames
from vitascope_upscaler.blending import load_blend, twin_of
from vitascope_upscaler.checkpoints import checkpoint_for, load_checkpoint
from vitascope_upscaler.compiled import MEMORY_SHARE, compiled_parts
from vitascope_upscaler.division import bytes_a_pixel, most_pixels
from vitascope_upscaler.network import Network, Parts, network_of
from vitascope_upscaler.settings import MOST_SCALE, UpscalerSettings
from vitascope_upscaler.upscaling import BeyondBudget, joined, upscaled
from vitascope_weights.exclusive_device import ExclusiveDevice
from vitascope_weights.kept_networks import KeptNetworks

log = logging.getLogger(__name__)

_MIB = 1024 * 1024

_MEMORY_MIB = {"cpu": 4096, "cuda": 8192}
"""By device: enough for pictures of 1024 x 1024 and videos of 1280 x 720."""


class _Wanted(NamedTuple):
    """What a network is asked for by."""

    source: str
    scale: float


class _Ready(NamedTuple):
    """A loaded network, and its parts as they are run."""

    network: Network
    parts: Parts


class Upscaler:
    """Enlarges every frame on its own, so chunk borders cannot show.

    Args:
        settings: Which networks may run, and where.

    Raises:
        InvalidSettings: The device is not there.
    """

    def __init__(self, settings: UpscalerSettings) -> None:
        self._settings = settings
        self._device = ExclusiveDevice(settings.device)
        kind = self._device.torch.type
        share = MEMORY_SHARE if settings.compile else 1
        self._budget = int((settings.memory_mib or _MEMORY_MIB[kind]) * _MIB * share)
        self._networks = KeptNetworks(self._found, self._load, settings.loaded_models)
        self._twins: dict[Path, Path] = {}

    def load(self) -> StageCard:
        """Load the networks for requests that name none, so that they neither fail nor take time at the first chunk.

        What is to be compiled takes minutes, so it is all loaded here, for requests that name others as well.

        Returns:
            What the upscaler can do.

        Raises:
            InvalidWeights: There are no such weights, or they do not fit.
            InvalidSettings: PyTorch cannot compile here, or more networks are compiled than are kept.
            DeviceOutOfMemory: They have no place on the device.
        """
        settings = self._settings
        own = [_Wanted(settings.model_path, scale) for scale in settings.scales]
        with self._device.alone("loading weights"):
            if settings.compile:
                self._load_everything()
            networks = [self._networks.get(wanted).network for wanted in own]
            bounds = () if settings.banded else tuple(most_pixels(network, self._budget) for network in networks)
        return StageCard(StageName.UPSCALE, scales=settings.scales, models=settings.models, max_pixels=bounds)

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        """Return the chunk enlarged; identity, order and fps are kept, a lead is dropped.

        Raises:
            InvalidRequest: The options are outside what the card offers, or the frames too large for the memory.
            InvalidWeights: The weights cannot be loaded.
            DeviceOutOfMemory: As it says.
        """
        return chunk.with_frames(joined(self.stream(chunk, options), len(chunk.frames)))

    def stream(self, chunk: Chunk, options: Options) -> Iterator[Frames]:
        """Yield the frames of what `apply` returns, a few at a time, and hold no others.

        Raises:
            As `apply`, at the first frames.
        """
        wanted = self._checked(options)
        with self._device.alone("upscaling"):
            network, parts = self._networks.get(wanted)
        settings, budget = self._settings, self._budget
        made = upscaled(network, chunk.frames, wanted.scale, budget=budget, banded=settings.banded, parts=parts)
        while True:
            # Anew for each: whoever takes the frames may take long, and may never ask for more.
            with self._device.alone("upscaling"):
                try:
                    some = next(made, None)
                except BeyondBudget as error:
                    raise self._too_large(network, chunk) from error
            if some is None:
                return
            yield some
            del some

    def _checked(self, options: Options) -> _Wanted:
        """Return the network that the options stand for, if all they say is offered."""
        if not isinstance(options, UpscaleOptions):
            raise TypeError(f"the upscaler takes no {type(options).__name__}")
        # True is 1, but nobody means it.
        if isinstance(options.scale, bool) or not 1 <= options.scale <= MOST_SCALE:
            raise InvalidRequest("upscaling_scale", options.scale, f"from 1 to {MOST_SCALE}")
        source = options.model_path or self._settings.model_path
        if source not in self._settings.models:
            allowed = ", ".join(self._settings.models)
            raise InvalidRequest("upscaling_model_path", source, f"one of {allowed}")
        return _Wanted(source, options.scale)

    def _too_large(self, network: Network, chunk: Chunk) -> InvalidRequest:
        height, width = chunk.frames.shape[1:3]
        most, each, name = most_pixels(network, self._budget), bytes_a_pixel(network), network.architecture.name
        allowed = f"at most {most} pixels in all: {name} needs {each:.0f} bytes for each, of {self._budget // _MIB} MiB"
        if self._settings.banded or height * width <= most:
            # Its rows are too long: not even the least part that may be worked on alone fits.
            allowed = f"narrower: some rows of {name} must fit {self._budget // _MIB} MiB"
        return InvalidRequest("size", f"{width}x{height}", allowed)

    def _load_everything(self) -> None:
        """Load all that requests may name.

        Raises:
            InvalidSettings: Not all of it is kept, so a chunk would wait for a network to be compiled again.
        """
        settings = self._settings
        every = [_Wanted(source, scale) for source in settings.models for scale in settings.scales]
        files = {self._networks.file(wanted) for wanted in every}
        if len(files) > settings.loaded_models:
            raise InvalidSettings(
                f"compile needs every network to be kept: loaded_models must be at least {len(files)}, "
                f"got {settings.loaded_models}"
            )
        for wanted in every:
            self._networks.get(wanted)

    def _found(self, wanted: _Wanted) -> Path:
        path = checkpoint_for(wanted.source, wanted.scale)
        twin = None if self._settings.denoise_strength is None else twin_of(wanted.source)
        if twin is not None:
            self._twins[path] = checkpoint_for(twin, wanted.scale)
        return path

    def _load(self, path: Path, _: _Wanted) -> _Ready:
        twin, strength = self._twins.get(path), self._settings.denoise_strength
        if twin is None or strength is None:
            architecture, weights = load_checkpoint(path)
        else:
            architecture, weights = load_blend(path, twin, strength)
        network = network_of(architecture, weights, self._device.torch)
        compiles = self._settings.compile
        parts = compiled_parts(network) if compiles else Parts(network.body, network.tail)
        told = {"weights": str(path), "network": architecture.name, "device": str(network.device), "compiled": compiles}
        log.info("network loaded", extra=told)
        return _Ready(network, parts)
