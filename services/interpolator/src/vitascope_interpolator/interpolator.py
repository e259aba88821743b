"""The stage: a chunk in, the chunk with frames between its frames out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vitascope_core.errors import InputLost, InvalidRequest
from vitascope_core.geometry import interpolated_start
from vitascope_core.plan import InterpolateOptions, Options
from vitascope_frames.chunk import Chunk
from vitascope_interpolator.interpolation import interpolate
from vitascope_interpolator.networks import Networks
from vitascope_interpolator.settings import EXPS, SCALES, InterpolatorSettings
from vitascope_weights.exclusive_device import ExclusiveDevice

_MIB = 1024 * 1024

_MEMORY_MIB = {"cpu": 32, "cuda": 4096}
"""By device. A GPU is busy from some pairs on; a CPU is faster while a pair's layers stay near its cache."""


class Interpolator:
    """Doubles the frame rate of a chunk, once or several times.

    A chunk's frames include those between its predecessor's last frame, its lead, and its first: so chunks are
    independent of each other and together make what the whole clip would.

    Args:
        settings: Which networks may run, and where.

    Raises:
        InvalidSettings: The device is not there.
    """

    def __init__(self, settings: InterpolatorSettings) -> None:
        self._settings = settings
        self._device = ExclusiveDevice(settings.device)
        self._networks = Networks(self._device.torch, settings.loaded_models)
        self._budget = (settings.memory_mib or _MEMORY_MIB[self._device.torch.type]) * _MIB

    def load(self) -> None:
        """Load the network for requests that name none, so that it neither fails nor takes time at the first chunk.

        Raises:
            InvalidWeights: There are no such weights, or they do not fit.
            DeviceOutOfMemory: They have no place on the device.
        """
        with self._device.alone("loading weights"):
            self._networks.get(self._settings.model_path)

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        """Return the chunk with 2**exp - 1 new frames in every gap, that behind its lead included.

        A video of a single frame is returned as it is, frame rate and all.

        Raises:
            InvalidRequest: The options are outside what the card offers.
            InputLost: The chunk has no lead and is not the first.
            InvalidWeights: The weights cannot be loaded.
            DeviceOutOfMemory: As it says.
        """
        if not isinstance(options, InterpolateOptions):
            raise TypeError(f"the interpolator takes no {type(options).__name__}")
        source = self._checked(options)
        if chunk.start and chunk.lead is None:
            raise InputLost(f"chunk {chunk.output}-{chunk.index} has no lead, the frame before its first")
        if chunk.last and chunk.lead is None and len(chunk.frames) == 1:
            return chunk
        factor = 2**options.exp
        with self._device.alone("interpolating"):
            network = self._networks.get(source)
            frames = interpolate(
                network, chunk.frames, chunk.lead, exp=options.exp, scale=options.scale, budget=self._budget
            )
        start = interpolated_start(chunk.start, factor)
        return replace(chunk, frames=frames, lead=None, start=start, fps=chunk.fps * factor)

    def _checked(self, options: InterpolateOptions) -> str:
        """Return the weights that the options name, if all they say is offered."""
        # True is 1, but nobody means it.
        if isinstance(options.exp, bool) or options.exp not in EXPS:
            raise InvalidRequest("frame_interpolation_exp", options.exp, f"one of {_listed(EXPS)}")
        if isinstance(options.scale, bool) or options.scale not in SCALES:
            raise InvalidRequest("frame_interpolation_scale", options.scale, f"one of {_listed(SCALES)}")
        source = options.model_path or self._settings.model_path
        if source not in self._settings.models:
            allowed = ", ".join(self._settings.models)
            raise InvalidRequest("frame_interpolation_model_path", source, f"one of {allowed}")
        return source


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
