"""The card of a loaded pipeline: what it makes, its limits and defaults, read from the pipeline itself."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan

from vitascope_core.card import Defaults, Limits, Mode, ModelCard
from vitascope_core.errors import InvalidModel
from vitascope_denoiser.call import Call
from vitascope_denoiser.checkpoint import INDEX
from vitascope_denoiser.demo import DEMO_NOTE, MAX_DEMO_PIXELS, demo_defaults
from vitascope_denoiser.families import why_not_exact, why_not_resumable
from vitascope_denoiser.preview import foretells
from vitascope_denoiser.settings import DEMO_MODEL, EngineSettings

_TEXT_SUFFICES = frozenset({"FluxKontextPipeline", "Flux2Pipeline", "Flux2KleinPipeline"})
"""Pipelines with an optional input image that they really can do without; most only fail later."""

_STEPS_WITHOUT_CALLBACK = frozenset({"HunyuanVideo15Pipeline"})
"""Pipelines that report no steps themselves and do take them through their scheduler."""

_INPUTS = ("image", "images", "video", "control_image")
_MAX_IMAGE_SIDE = 4096
_MAX_VIDEO_SIDE = 2048
_MAX_LATENT_FRAMES = 256
_MAX_PIXELS = 2**28
"""Of one output: 291 frames of 1280 x 720. Beyond it transformers run for hours or out of memory."""
_WAN_FPS = Fraction(16)


def card_of(pipe: Any, settings: EngineSettings) -> ModelCard:
    """Return what the pipeline can do under these settings.

    Raises:
        InvalidModel: It cannot be served: it needs an input picture, reports no steps, or has no VAE.
    """
    call = Call(pipe)
    check_served(pipe, call)
    obstacle = why_not_resumable(pipe, settings)
    video = call.takes("num_frames")
    wan = isinstance(pipe.vae, AutoencoderKLWan)
    modes = ((Mode.TEXT_TO_VIDEO, Mode.TEXT_TO_IMAGE) if wan else (Mode.TEXT_TO_VIDEO,)) if video else ()
    return ModelCard(
        pool=settings.pool_slug,
        id=settings.model_name,
        aliases=_aliases(settings),
        modes=modes or (Mode.TEXT_TO_IMAGE,),
        width=_side_limits(pipe, video),
        height=_side_limits(pipe, video),
        num_frames=_frame_limits(pipe) if video else Limits(1, 1),
        num_inference_steps=Limits(1, int(pipe.scheduler.config.get("num_train_timesteps", 1000))),
        defaults=demo_defaults() if settings.model_path == DEMO_MODEL else _defaults(pipe, call),
        honours=_honoured(pipe, call),
        max_pixels=MAX_DEMO_PIXELS if settings.model_path == DEMO_MODEL else _MAX_PIXELS,
        created=_created(pipe),
        pipeline=type(pipe).__name__,
        note=_note(settings, obstacle, why_not_exact(pipe)),
        resumable=obstacle is None,
    )


def _note(settings: EngineSettings, obstacle: str | None, inexact: str | None) -> str:
    sentences = [DEMO_NOTE] if settings.model_path == DEMO_MODEL else []
    if obstacle is not None:
        sentences.append(f"Interrupted jobs begin anew: {obstacle}.")
    elif inexact is not None:
        sentences.append(f"Interrupted jobs go on, perhaps not bit for bit: {inexact}.")
    return " ".join(sentences)


def check_served(pipe: Any, call: Call) -> None:
    """Raise InvalidModel if the engine cannot drive the pipeline from a text alone."""
    name = type(pipe).__name__
    inputs = [field for field in _INPUTS if call.takes(field)]
    if inputs and (name not in _TEXT_SUFFICES or set(inputs) & set(call.required)):
        raise InvalidModel(f"{name} works on an input {inputs[0]}; such models are not served yet")
    if not call.takes("prompt") or call.required:
        needed = ", ".join(call.required) or "no prompt"
        raise InvalidModel(f"{name} is not a text-to-image or text-to-video pipeline (it takes {needed})")
    if not call.takes("callback_on_step_end") and name not in _STEPS_WITHOUT_CALLBACK:
        # Those without are old, or make other things than pictures.
        raise InvalidModel(f"{name} is not known to take its steps through a scheduler")
    missing = [
        field
        for field in ("height", "width", "num_inference_steps", "generator", "output_type")
        if not call.takes(field)
    ]
    if missing:
        raise InvalidModel(f"{name} takes no {missing[0]}")
    if not hasattr(getattr(pipe, "vae", None), "decode"):
        raise InvalidModel(f"{name} has no VAE whose decode could be split off")


def _aliases(settings: EngineSettings) -> tuple[str, ...]:
    """Return the id behind a served name; a folder of this machine is nothing that clients know."""
    local = Path(settings.model_path).expanduser().exists()
    return () if local or settings.model_path == settings.model_name else (settings.model_path,)


def _honoured(pipe: Any, call: Call) -> tuple[str, ...]:
    fields = {
        "negative_prompt": call.negative,
        "guidance_scale": call.guidance is not None,
        "guidance_scale_2": call.guidance_2,
        "previews": why_not_exact(pipe) is None and foretells(pipe.scheduler),
    }
    return tuple(name for name, honoured in fields.items() if honoured)


def _spatial_factor(pipe: Any) -> int:
    """Pixels per latent, along a side."""
    names = ("vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_scale_factor")
    return next((int(factor) for name in names if (factor := getattr(pipe, name, None))), 8)


def _temporal_factor(pipe: Any) -> int:
    """Frames per latent frame."""
    names = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
    return next((int(factor) for name in names if (factor := getattr(pipe, name, None))), 1)


def _network(pipe: Any) -> Any:
    networks = (getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet"))
    return next((network for network in networks if network is not None), None)


def _side_multiple(pipe: Any) -> int:
    """Pixels that width and height are multiples of.

    At least two latents even where the configured patch is one: such image pipelines pack 2 x 2 latents before the
    transformer (Flux) or halve them in a U-Net.
    """
    patch = getattr(getattr(_network(pipe), "config", None), "patch_size", None)
    side = patch[-1] if isinstance(patch, (list, tuple)) else patch
    return _spatial_factor(pipe) * max(2, side if isinstance(side, int) else 1)


def _rope_positions(pipe: Any) -> int | None:
    """Positions that the transformer's rotary embedding has along each axis; None if it is not bounded."""
    positions = getattr(getattr(_network(pipe), "config", None), "rope_max_seq_len", None)
    return positions if isinstance(positions, int) else None


def _side_limits(pipe: Any, video: bool) -> Limits:
    multiple = _side_multiple(pipe)
    high = _MAX_VIDEO_SIDE if video else _MAX_IMAGE_SIDE
    positions = _rope_positions(pipe)
    return Limits(multiple, min(high // multiple, positions or high) * multiple, multiple)


def _frame_limits(pipe: Any) -> Limits:
    """Causal video VAEs make one frame from the first latent frame and ``factor`` from each that follows."""
    factor = _temporal_factor(pipe)
    latents = min(_MAX_LATENT_FRAMES, _rope_positions(pipe) or _MAX_LATENT_FRAMES)
    return Limits(1, (latents - 1) * factor + 1, factor)


def _defaults(pipe: Any, call: Call) -> Defaults:
    size = getattr(pipe, "default_sample_size", None)
    side = size * _spatial_factor(pipe) if isinstance(size, int) else 1024
    guidance = call.default(call.guidance) if call.guidance else None
    return Defaults(
        width=_fitting(pipe, call.default("width") or side),
        height=_fitting(pipe, call.default("height") or side),
        num_inference_steps=call.default("num_inference_steps") or 50,
        num_frames=(call.default("num_frames") or 1) if call.takes("num_frames") else 1,
        fps=_fps(pipe, call),
        guidance_scale=None if guidance is None else float(guidance),
    )


def _fitting(pipe: Any, side: int) -> int:
    """Return the largest side that the limits allow and that is not above ``side``."""
    limits = _side_limits(pipe, video=Call(pipe).takes("num_frames"))
    return max(limits.low, min(side, limits.high) // limits.multiple * limits.multiple)


def _fps(pipe: Any, call: Call) -> Fraction:
    rate = call.default("frame_rate")
    if rate is not None:
        return Fraction(rate)
    # Wan 2.2 5B, which is trained at 24 frames a second, is the only Wan that expands its timesteps.
    return Fraction(24) if pipe.config.get("expand_timesteps") else _WAN_FPS


def _created(pipe: Any) -> int:
    """Unix seconds of the checkpoint's index: the same on each start, unlike the clock."""
    index = Path(str(pipe.config.get("_name_or_path", ""))) / INDEX
    return int(index.stat().st_mtime) if index.is_file() else 0
