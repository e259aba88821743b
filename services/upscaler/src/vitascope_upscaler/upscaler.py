"""The stage: a chunk in, the chunk with larger frames out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vitascope_core.card import StageCard
from vitascope_core.errors import DeviceOutOfMemory, InvalidRequest
from vitascope_core.plan import Options, StageName, UpscaleOptions
from vitascope_frames.chunk import Chunk
from vitascope_upscaler.blending import load_blend, twin_of
from vitascope_upscaler.checkpoints import checkpoint_for, load_checkpoint
from vitascope_upscaler.division import bytes_a_pixel, most_pixels
from vitascope_upscaler.network import Network, network_of
from vitascope_upscaler.settings import MOST_SCALE, UpscalerSettings
from vitascope_upscaler.upscaling import BeyondBudget, upscale
from vitascope_weights.kept_networks import KeptNetworks, torch_device

log = logging.getLogger(__name__)

_MIB = 1024 * 1024

_MEMORY_MIB = {"cpu": 4096, "cuda": 8192}
"""By device: enough for pictures of 1024 x 1024 and videos of 1280 x 720."""


class Upscaler:
    """Enlarges every frame on its own, so chunk borders cannot show.

    Args:
        settings: Which networks may run, and where.

    Raises:
        InvalidSettings: The device is not there.
    """

    def __init__(self, settings: UpscalerSettings) -> None:
        self._settings = settings
        self._device = torch_device(settings.device)
        self._budget = (settings.memory_mib or _MEMORY_MIB[self._device.type]) * _MIB
        self._networks: KeptNetworks[Network] = KeptNetworks(self._load, settings.loaded_models)
        # A repository is asked once: what it holds then is what its name stands for.
        self._paths: dict[tuple[str, float], Path] = {}
        self._twins: dict[Path, Path] = {}
        self._one_at_a_time = threading.Lock()

    def load(self) -> StageCard:
        """Load the networks for requests that name none, so that they neither fail nor take time at the first chunk.

        Returns:
            What the upscaler can do.

        Raises:
            InvalidWeights: There are no such weights, or they do not fit.
            DeviceOutOfMemory: They have no place on the device.
        """
        settings = self._settings
        with self._alone("loading weights"):
            networks = [self._network(settings.model_path, scale) for scale in settings.scales]
            bounds = () if settings.banded else tuple(most_pixels(network, self._budget) for network in networks)
        return StageCard(StageName.UPSCALE, scales=settings.scales, models=settings.models, max_pixels=bounds)

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        """Return the chunk enlarged; identity, order and fps are kept, a lead is dropped.

        Raises:
            InvalidRequest: The options are outside what the card offers, or the frames too large for the memory.
            InvalidWeights: The weights cannot be loaded.
            DeviceOutOfMemory: As it says.
        """
        if not isinstance(options, UpscaleOptions):
            raise TypeError(f"the upscaler takes no {type(options).__name__}")
        source = self._checked(options)
        with self._alone("upscaling"):
            network = self._network(source, options.scale)
            try:
                frames = upscale(
                    network, chunk.frames, options.scale, budget=self._budget, banded=self._settings.banded
                )
            except BeyondBudget as error:
                raise self._too_large(network, chunk) from error
        return chunk.with_frames(frames)

    def _checked(self, options: UpscaleOptions) -> str:
        """Return the weights that the options name, if all they say is offered."""
        # True is 1, but nobody means it.
        if isinstance(options.scale, bool) or not 1 <= options.scale <= MOST_SCALE:
            raise InvalidRequest("upscaling_scale", options.scale, f"from 1 to {MOST_SCALE}")
        source = options.model_path or self._settings.model_path
        if source not in self._settings.models:
            allowed = ", ".join(self._settings.models)
            raise InvalidRequest("upscaling_model_path", source, f"one of {allowed}")
        return source

    def _too_large(self, network: Network, chunk: Chunk) -> InvalidRequest:
        height, width = chunk.frames.shape[1:3]
        most, each, name = most_pixels(network, self._budget), bytes_a_pixel(network), network.architecture.name
        allowed = f"at most {most} pixels in all: {name} needs {each:.0f} bytes for each, of {self._budget // _MIB} MiB"
        if self._settings.banded or height * width <= most:
            # Its rows are too long: not even the least part that may be worked on alone fits.
            allowed = f"narrower: some rows of {name} must fit {self._budget // _MIB} MiB"
        return InvalidRequest("size", f"{width}x{height}", allowed)

    def _network(self, source: str, scale: float) -> Network:
        path = self._paths.get((source, scale))
        # A file that made room and is gone may have a successor under its name.
        if path is None or (path not in self._networks and not path.exists()):
            path = checkpoint_for(source, scale)
            twin = None if self._settings.denoise_strength is None else twin_of(source)
            if twin is not None:
                self._twins[path] = checkpoint_for(twin, scale)
            self._paths[source, scale] = path
        return self._networks.get(path)

    def _load(self, path: Path) -> Network:
        twin, strength = self._twins.get(path), self._settings.denoise_strength
        if twin is None or strength is None:
            architecture, weights = load_checkpoint(path)
        else:
            architecture, weights = load_blend(path, twin, strength)
        log.info(
            "network loaded", extra={"weights": str(path), "network": architecture.name, "device": str(self._device)}
        )
        return network_of(architecture, weights, self._device)

    @contextmanager
    def _alone(self, doing: str) -> Iterator[None]:
        """Have the networks and the device alone; running out of its memory is a Vitascope error."""
        with self._one_at_a_time:
            try:
                yield
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                raise DeviceOutOfMemory(f"the device ran out of memory while {doing}") from error
