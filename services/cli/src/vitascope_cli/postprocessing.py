"""Which transforms the options switch on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vitascope_cli.errors import UsageError
from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import UpscaleOptions
from vitascope_frames.stages import Transform
from vitascope_interpolator.settings import DEFAULT_MODEL as DEFAULT_RIFE
from vitascope_interpolator.settings import InterpolatorSettings, card_of
from vitascope_upscaler.settings import DEFAULT_MODEL as DEFAULT_ESRGAN
from vitascope_upscaler.settings import MOST_SCALE, SCALES, UpscalerSettings

_INTERPOLATION = ("frame_interpolation_exp", "frame_interpolation_scale", "frame_interpolation_model_path")
_UPSCALING = ("upscaling_scale", "upscaling_model_path")

Loaded = tuple[StageCard, Transform]


def load_transforms(options: argparse.Namespace) -> Sequence[Loaded]:
    """Load the weights of every transform that is switched on.

    Raises:
        UsageError: The options contradict each other or are malformed.
        InvalidWeights: There are no such weights, or they do not fit.
        DeviceOutOfMemory: They have no place on the device.
    """
    interpolates = _switched_on(options, "enable_frame_interpolation", _INTERPOLATION)
    upscales = _switched_on(options, "enable_upscaling", _UPSCALING)
    loaded: list[Loaded] = []
    if interpolates:
        loaded.append(_interpolator(options))
    if upscales:
        loaded.append(_upscaler(options))
    return loaded


def _switched_on(options: argparse.Namespace, switch: str, its_options: tuple[str, ...]) -> bool:
    on = getattr(options, switch, None)
    stray = next((name for name in its_options if getattr(options, name, None) is not None), None)
    if stray and on is None:
        raise UsageError(f"--{stray.replace('_', '-')} needs --{switch.replace('_', '-')}")
    return bool(on)


def _interpolator(options: argparse.Namespace) -> Loaded:
    try:
        settings = InterpolatorSettings(options.frame_interpolation_model_path or DEFAULT_RIFE, device=options.device)
    except InvalidSettings as error:
        raise UsageError(f"--frame-interpolation-model-path: {error}") from error
    from vitascope_interpolator.interpolator import Interpolator  # noqa: PLC0415 - torch, only where it is needed

    interpolator = Interpolator(settings)
    interpolator.load()
    return card_of(settings), interpolator


def _upscaler(options: argparse.Namespace) -> Loaded:
    scales = _scales(options)
    try:
        # Banded: better slowly than not at all, where nobody else waits.
        settings = UpscalerSettings(
            options.upscaling_model_path or DEFAULT_ESRGAN, scales=scales, device=options.device, banded=True
        )
    except InvalidSettings as error:
        raise UsageError(f"--upscaling-model-path: {error}") from error
    from vitascope_upscaler.upscaler import Upscaler  # noqa: PLC0415 - torch, only where it is needed

    upscaler = Upscaler(settings)
    return upscaler.load(), upscaler


def _scales(options: argparse.Namespace) -> tuple[float, ...]:
    """Return the enlargements that may be asked for: a server's are whole numbers, a single job has its own."""
    if not hasattr(options, "upscaling_scale"):
        return SCALES
    scale = UpscaleOptions().scale if options.upscaling_scale is None else options.upscaling_scale
    if not 1 <= scale <= MOST_SCALE:
        raise UsageError(f"--upscaling-scale must be from 1 to {MOST_SCALE}, got {scale:g}")
    return (scale,)
