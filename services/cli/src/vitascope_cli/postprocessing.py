"""Which transforms the options switch on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vitascope_cli.errors import UsageError
from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidSettings
from vitascope_frames.stages import Transform
from vitascope_interpolator.settings import DEFAULT_MODEL, InterpolatorSettings, card_of

_INTERPOLATION = ("frame_interpolation_exp", "frame_interpolation_scale", "frame_interpolation_model_path")


def load_transforms(options: argparse.Namespace) -> Sequence[tuple[StageCard, Transform]]:
    """Load the weights of every transform that is switched on.

    Raises:
        UsageError: The options contradict each other or are malformed.
        InvalidWeights: There are no such weights, or they do not fit.
        DeviceOutOfMemory: They have no place on the device.
    """
    if not options.enable_frame_interpolation:
        stray = next((name for name in _INTERPOLATION if getattr(options, name, None) is not None), None)
        if stray and options.enable_frame_interpolation is None:
            raise UsageError(f"--{stray.replace('_', '-')} needs --enable-frame-interpolation")
        return []
    try:
        settings = InterpolatorSettings(options.frame_interpolation_model_path or DEFAULT_MODEL, device=options.device)
    except InvalidSettings as error:
        raise UsageError(f"--frame-interpolation-model-path: {error}") from error
    from vitascope_interpolator.interpolator import Interpolator  # noqa: PLC0415 - torch, only where it is needed

    interpolator = Interpolator(settings)
    interpolator.load()
    return [(card_of(settings), interpolator)]
