"""What a request asks of the denoiser, held against the pool's card: size, frames, steps, guidance, seeds."""

from __future__ import annotations

import math
import secrets
from fractions import Fraction

from vitascope_core.card import Limits, ModelCard
from vitascope_core.errors import InvalidRequest, MissingField, UnsupportedField
from vitascope_core.geometry import parse_size
from vitascope_core.job import DenoiseSpec
from vitascope_gateway.fields import Fields

MAX_SEED = 2**63 - 1
MAX_GUIDANCE = 100.0
MAX_FPS = 120


def denoise_spec(fields: Fields, card: ModelCard, num_frames: int, n: int) -> DenoiseSpec:
    """Return what the denoiser is to do for a request.

    Args:
        fields: The request.
        card: The pool that takes it.
        num_frames: Frames of one output; 1 for images.
        n: Number of outputs.

    Raises:
        InvalidRequest: A field is missing, wrong, or not honoured by the model.
    """
    width, height = frame_size(fields, card)
    if width * height * num_frames > card.max_pixels:
        field = next((name for name in ("num_frames", "seconds", "size", "width") if fields.has(name)), "size")
        value = f"{width}x{height} and {num_frames} frames"
        raise InvalidRequest(field, value, f"such that width * height * frames is at most {card.max_pixels}")
    steps = fields.integer("num_inference_steps")
    return DenoiseSpec(
        prompt=_prompt(fields, card),
        negative_prompt=_negative_prompt(fields, card),
        width=width,
        height=height,
        num_frames=num_frames,
        num_inference_steps=card.defaults.num_inference_steps
        if steps is None
        else card.num_inference_steps.check("num_inference_steps", steps),
        guidance_scale=_guidance(fields, card, "guidance_scale", card.defaults.guidance_scale),
        guidance_scale_2=_guidance(fields, card, "guidance_scale_2", card.defaults.guidance_scale_2),
        seeds=_seeds(fields, n),
    )


def frame_size(fields: Fields, card: ModelCard) -> tuple[int, int]:
    """Return (width, height) of the frames that the model makes.

    ``size`` wins over ``width`` and ``height``, which may repeat it; of those two, one that is absent is the default.

    Raises:
        InvalidRequest: The model does not make that size, or the fields contradict each other.
    """
    size = fields.text("size")
    width, height = fields.integer("width"), fields.integer("height")
    if size is None or size.strip().lower() in ("", "auto"):
        return (
            card.defaults.width if width is None else card.width.check("width", width),
            card.defaults.height if height is None else card.height.check("height", height),
        )
    wide, high = parse_size(size)
    for side, limits, value in (("width", card.width, wide), ("height", card.height, high)):
        if not _allows(limits, value):
            raise InvalidRequest("size", size, f"WIDTHxHEIGHT with a {side} that is {limits.describe(value)}")
    for side, said, value in (("width", width, wide), ("height", height, high)):
        if said is not None and said != value:
            raise InvalidRequest(side, said, f"{value} as in size, or absent")
    return wide, high


def frame_rate(fields: Fields, card: ModelCard) -> Fraction:
    """Return the frames a second of a video before interpolation.

    Raises:
        InvalidRequest: The number is out of range.
    """
    fps = fields.number("fps")
    if fps is None:
        return card.defaults.fps
    if not 1 <= fps <= MAX_FPS:
        raise InvalidRequest("fps", fps, f"from 1 to {MAX_FPS}")
    # As written: 23.976 is 2997/125, not the nearest binary fraction.
    return Fraction(str(fps)).limit_denominator(1001)


def frame_count(fields: Fields, card: ModelCard, fps: Fraction) -> int:
    """Return the frames of a video before interpolation: ``num_frames``, else what comes nearest to ``seconds``.

    Raises:
        InvalidRequest: The model does not make that many.
    """
    seconds = fields.number("seconds", text=True)
    num_frames = fields.integer("num_frames")
    if seconds is not None and seconds <= 0:
        raise InvalidRequest("seconds", seconds, "more than 0")
    if num_frames is not None:
        return card.num_frames.check("num_frames", num_frames)
    if seconds is None:
        return card.defaults.num_frames
    limits = card.num_frames
    # The models' grids are like 4k + 1; halfway counts as up, so that nobody gets less than was asked for.
    steps = math.floor((Fraction(seconds) * fps - limits.low) / limits.multiple + Fraction(1, 2))
    nearest = limits.low + steps * limits.multiple
    if not _allows(limits, nearest):
        low, high = (float(count / fps) for count in (limits.low, limits.high))
        raise InvalidRequest("seconds", seconds, f"from {low:.3g} to {high:.3g} at {float(fps):g} frames a second")
    return nearest


def output_count(fields: Fields, card: ModelCard, most: int) -> int:
    """Return how many outputs are asked for; a list of seeds without ``n`` says it as well.

    Raises:
        InvalidRequest: More than ``most`` or than the model makes, or fewer than one.
    """
    n, other = fields.integer("n"), fields.integer("num_outputs_per_prompt")
    field = "n" if n is not None else "num_outputs_per_prompt"
    if n is not None and other not in (None, n):
        raise InvalidRequest("num_outputs_per_prompt", other, f"{n} as n says, or absent")
    count = n if n is not None else other
    if count is None:
        seeds = fields.integers("seed")
        field, count = "seed", len(seeds) if isinstance(seeds, tuple) else 1
    limit = min(most, card.max_outputs)
    if not 1 <= count <= limit:
        raise InvalidRequest(field, count, f"from 1 to {limit}" + (" seeds" if field == "seed" else ""))
    return count


def _allows(limits: Limits, value: int) -> bool:
    return limits.low <= value <= limits.high and (value - limits.low) % limits.multiple == 0


def _prompt(fields: Fields, card: ModelCard) -> str:
    prompt = fields.text("prompt")
    if prompt is None:
        raise MissingField("prompt")
    if not prompt.strip():
        raise InvalidRequest("prompt", prompt, "a text that is not empty")
    return _short("prompt", prompt, card)


def _negative_prompt(fields: Fields, card: ModelCard) -> str:
    text = fields.text("negative_prompt")
    if text is None:
        return card.defaults.negative_prompt
    if text and "negative_prompt" not in card.honours:
        raise UnsupportedField("negative_prompt", f"{card.id} has no such parameter")
    return _short("negative_prompt", text, card)


def _short(field: str, text: str, card: ModelCard) -> str:
    if len(text) > card.max_prompt_chars:
        raise InvalidRequest(field, f"{len(text)} characters", f"at most {card.max_prompt_chars} characters long")
    return text


def _guidance(fields: Fields, card: ModelCard, field: str, default: float | None) -> float | None:
    value = fields.number(field)
    if value is None:
        return default
    if field not in card.honours:
        raise UnsupportedField(field, f"{card.id} has no such parameter")
    if not 0 <= value <= MAX_GUIDANCE:
        raise InvalidRequest(field, value, f"from 0 to {MAX_GUIDANCE:g}")
    return value


def _seeds(fields: Fields, n: int) -> tuple[int, ...]:
    seed = fields.integers("seed")
    if isinstance(seed, tuple):
        if len(seed) != n:
            raise InvalidRequest("seed", list(seed), f"one integer or a list of n = {n}")
        for i, value in enumerate(seed):
            _check_seed(f"seed[{i}]", value, MAX_SEED)
        return seed
    if seed is None:
        # 32 of the 63 bits: enough to differ, short enough to read out.
        seed = secrets.randbits(32)
    _check_seed("seed", seed, MAX_SEED - (n - 1))
    return tuple(seed + i for i in range(n))


def _check_seed(field: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise InvalidRequest(field, value, f"an integer from 0 to {most}")
