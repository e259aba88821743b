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
from vitascope_models.catalogue import DEMO, DEMO_ESRGAN, DEMO_RIFE
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
    # A server of the demonstration model has all there is to try: the weights are here and load in a moment.
    usual = options.command == "serve" and options.model_path == DEMO
    interpolates = _switched_on(options, "enable_frame_interpolation", _INTERPOLATION, usual=usual)
    upscales = _switched_on(options, "enable_upscaling", _UPSCALING, usual=usual)
    loaded: list[Loaded] = []
    if interpolates:
        loaded.append(_interpolator(options))
    if upscales:
        loaded.append(_upscaler(options))
    return loaded


def default_weights(options: argparse.Namespace) -> tuple[str, str]:
    """Return the weights of RIFE and of Real-ESRGAN where the options name none: the model's own kind."""
    demo = getattr(options, "model_path", None) == DEMO
    return (DEMO_RIFE, DEMO_ESRGAN) if demo else (DEFAULT_RIFE, DEFAULT_ESRGAN)


def _switched_on(
    options: argparse.Namespace, switch: str, its_options: tuple[str, ...], *, usual: bool = False
) -> bool:
    on = getattr(options, switch, None)
    if on is None and usual:
        on = True
    stray = next((name for name in its_options if getattr(options, name, None) is not None), None)
    if stray and on is None:
        raise UsageError(f"--{stray.replace('_', '-')} needs --{switch.replace('_', '-')}")
    return bool(on)


def _interpolator(options: argparse.Namespace) -> Loaded:
    weights = options.frame_interpolation_model_path or default_weights(options)[0]
    try:
        settings = InterpolatorSettings(weights, device=options.device)
    except InvalidSettings as error:
        raise UsageError(f"--frame-interpolation-model-path: {error}") from error
    from vitascope_interpolator.interpolator import Interpolator  # noqa: PLC0415 - torch, only where it is needed

    interpolator = Interpolator(settings)
    interpolator.load()
    return card_of(settings), interpolator


def _upscaler(options: argparse.Namespace) -> Loaded:
    weights, scales = options.upscaling_model_path or default_weights(options)[1], _scales(options)
    try:
        # Banded: better slowly than not at all, where nobody else waits.
        settings = UpscalerSettings(weights, scales=scales, device=options.device, banded=True)
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
