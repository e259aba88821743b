"""What a request asks of the transforms, held against the cards of those that are installed."""

from __future__ import annotations

from vitascope_core.card import StageCard
from vitascope_core.errors import InvalidRequest, UnsupportedField
from vitascope_core.geometry import check_frame_size
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.fields import Fields

DEFAULT_UPSCALING = 4


def plan_of(fields: Fields, catalogue: Catalogue) -> Plan:
    """Return the stages of a job.

    Options of a transform that is not switched on are an error: who names a scale wants it. They are ignored if the
    switch is there and false, as user interfaces send it.

    Raises:
        InvalidRequest: An option is wrong, contradicts the switch, or the transform is not installed.
    """
    return Plan(interpolate=_interpolation(fields, catalogue), upscale=_upscaling(fields, catalogue))


def _interpolation(fields: Fields, catalogue: Catalogue) -> InterpolateOptions | None:
    exp = fields.integer("frame_interpolation_exp")
    scale = fields.number("frame_interpolation_scale")
    path = fields.text("frame_interpolation_model_path")
    options = ("frame_interpolation_exp", "frame_interpolation_scale", "frame_interpolation_model_path")
    card = _wanted(fields, catalogue, "enable_frame_interpolation", options, StageName.INTERPOLATE, "interpolator")
    if card is None:
        return None
    model = _model("frame_interpolation_model_path", path, card, "interpolator")
    chosen = InterpolateOptions(1 if exp is None else exp, 1.0 if scale is None else scale, model)
    if chosen.exp not in card.exps:
        raise InvalidRequest("frame_interpolation_exp", chosen.exp, f"one of {_listed(card.exps)}")
    if chosen.scale not in card.flow_scales:
        raise InvalidRequest("frame_interpolation_scale", chosen.scale, f"one of {_listed(card.flow_scales)}")
    return chosen


def _upscaling(fields: Fields, catalogue: Catalogue, *, implied: bool = False) -> UpscaleOptions | None:
    # The card says whether it has to be a whole number.
    scale = fields.number("upscaling_scale")
    path = fields.text("upscaling_model_path")
    options = ("upscaling_scale", "upscaling_model_path")
    card = _wanted(fields, catalogue, "enable_upscaling", options, StageName.UPSCALE, "upscaler", implied=implied)
    if card is None:
        return None
    if scale is None:
        scale = DEFAULT_UPSCALING if DEFAULT_UPSCALING in card.scales else max(card.scales, default=DEFAULT_UPSCALING)
    if scale not in card.scales:
        raise InvalidRequest("upscaling_scale", scale, f"one of {_listed(card.scales)}")
    return UpscaleOptions(scale, _model("upscaling_model_path", path, card, "upscaler"))


def upscaling_of(fields: Fields, catalogue: Catalogue) -> UpscaleOptions:
    """Return how a picture is enlarged, where a request can ask for nothing else.

    Raises:
        InvalidRequest: An option is wrong, the switch is off, or no upscaler is installed.
    """
    chosen = _upscaling(fields, catalogue, implied=True)
    if chosen is None:
        raise UnsupportedField("enable_upscaling", "without it there is nothing to be done")
    return chosen


def check_frame(plan: Plan, catalogue: Catalogue, width: int, height: int, field: str = "size") -> None:
    """Refuse frames that the upscaler has no memory for.

    Args:
        plan: What becomes of the frames.
        catalogue: The cards of what is installed.
        width: Pixels of a frame before it is enlarged.
        height: Pixels of a frame before it is enlarged.
        field: What the client may change.

    Raises:
        InvalidRequest: Frames are too large.
    """
    if plan.upscale is not None:
        check_frame_size(field, width, height, most_pixels(plan.upscale, catalogue), plan.upscale.scale)


def most_pixels(upscale: UpscaleOptions, catalogue: Catalogue) -> int:
    """Return the bound on width * height of a frame that the upscaler has memory for; 0 where none is known.

    What it can do with weights that a request names, it only knows itself.
    """
    card = catalogue.transform(StageName.UPSCALE)
    if card is None or upscale.model_path not in ("", *card.models[:1]):
        return 0
    return dict(zip(card.scales, card.max_pixels, strict=False)).get(upscale.scale, 0)


def _wanted(
    fields: Fields,
    catalogue: Catalogue,
    switch: str,
    options: tuple[str, ...],
    stage: StageName,
    worker: str,
    *,
    implied: bool = False,
) -> StageCard | None:
    """Return the card of a transform that the request switches on, or None if it does not.

    ``implied`` is whether it does so without saying it.
    """
    on = fields.flag(switch)
    if on is None and implied:
        on = True
    if on is None:
        stray = next((name for name in options if fields.has(name)), None)
        if stray is not None:
            raise UnsupportedField(stray, f"it needs {switch}: true")
    if not on:
        return None
    card = catalogue.transform(stage)
    if card is None:
        raise UnsupportedField(switch, f"no {worker} is installed")
    return card


def _model(field: str, path: str | None, card: StageCard, worker: str) -> str:
    """Return the weights that a request names, or "" for the worker's own."""
    if not path:
        return ""
    if "://" in path:
        raise InvalidRequest(field, path, "a local path or a Hugging Face repo id, not a URL")
    if not card.models:
        raise UnsupportedField(field, f"the {worker} runs the model that it was installed with")
    if path not in card.models:
        raise InvalidRequest(field, path, f"one of {', '.join(card.models)}")
    return path


def _listed(values: tuple[int, ...] | tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
