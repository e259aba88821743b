"""From a request to a job's spec: the only place where the defaults and limits of cards meet a request."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from vitascope_core.card import Mode, ModelCard
from vitascope_core.errors import InvalidRequest, MissingField, UnsupportedField
from vitascope_core.geometry import LONGEST_SIDES, cut_frames, cuts_of
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec, new_job_id
from vitascope_core.plan import Plan
from vitascope_core.ports import Clock
from vitascope_core.quality import compression_of
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.fields import Fields
from vitascope_gateway.postprocessing import check_frame, plan_of
from vitascope_gateway.previews import partial_images, video_previews
from vitascope_gateway.sampling import denoise_spec, frame_count, frame_rate, output_count
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.vocabulary import IMAGE_FIELDS, VIDEO_FIELDS

MAX_OUTPUTS = 10
"""Images of one request, as in OpenAI's API."""

QUALITY_HINTS = ("auto", "low", "medium", "high", "xhigh", "max", "standard", "hd")
"""What OpenAI's ``quality`` may say. A hint to a model that has such levels; the encoder's is ``output_quality``."""

IMAGE_FORMATS = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}


class Stamp(NamedTuple):
    """A new job's id, when it was accepted and when it must be finished, wall-clock milliseconds."""

    id: str
    created_ms: int
    deadline_ms: int


def admit_video(fields: Fields, catalogue: Catalogue, owner: str, clock: Clock, settings: GatewaySettings) -> JobSpec:
    """Return the spec of a new video job.

    ``chunk_frames``, an extension, cuts the frames into chunks of that many instead of by size: for debugging, and to
    show that cuts do not change a pixel.

    Raises:
        InvalidRequest: A field is missing, wrong or not supported; named as the client wrote it.
        ModelNotFound: No pool serves the model.
    """
    VIDEO_FIELDS.check(fields)
    card = _pool(fields, catalogue, Mode.TEXT_TO_VIDEO, "t2v")
    fields.choice("quality", QUALITY_HINTS)
    file = video_output(fields)
    fps = frame_rate(fields, card)
    n = output_count(fields, card, card.max_outputs)
    denoise = denoise_spec(fields, card, frame_count(fields, card, fps), n)
    denoise = replace(denoise, previews=video_previews(fields, card))
    plan = plan_of(fields, catalogue)
    check_frame(plan, catalogue, denoise.width, denoise.height)
    _check_sides(file, denoise, plan)
    cuts = _cuts(fields, denoise, fps, plan)
    stamp = stamp_of(JobKind.VIDEO, clock, settings)
    return JobSpec(
        id=stamp.id,
        kind=JobKind.VIDEO,
        pool=card.pool,
        model=fields.text("model") or card.id,
        created_ms=stamp.created_ms,
        deadline_ms=stamp.deadline_ms,
        denoise=denoise,
        cuts=cuts,
        output=file,
        fps=fps,
        plan=plan,
        owner=owner,
        result_ttl_s=settings.result_ttl_s,
    )


def admit_image(fields: Fields, catalogue: Catalogue, owner: str, clock: Clock, settings: GatewaySettings) -> JobSpec:
    """Return the spec of a new image job.

    Raises:
        InvalidRequest: A field is missing, wrong or not supported; named as the client wrote it.
        ModelNotFound: No pool serves the model.
    """
    IMAGE_FIELDS.check(fields)
    card = _pool(fields, catalogue, Mode.TEXT_TO_IMAGE, "t2i")
    fields.choice("quality", QUALITY_HINTS)
    fields.choice("response_format", ("url", "b64_json"))
    if fields.choice("background", ("auto", "opaque", "transparent")) == "transparent":
        raise UnsupportedField("background", f"{card.id} makes opaque images")
    previews = partial_images(fields, card)
    if fields.integer("num_frames") not in (None, 1):
        raise InvalidRequest("num_frames", fields.integer("num_frames"), "1 for an image")
    file = image_output(fields)
    n = output_count(fields, card, MAX_OUTPUTS)
    if n > 1 and fields.flag("stream"):
        raise InvalidRequest("n", n, "1 when events are streamed: they do not say which image they are of")
    denoise = replace(denoise_spec(fields, card, 1, n), previews=previews)
    plan = plan_of(fields, catalogue)
    check_frame(plan, catalogue, denoise.width, denoise.height)
    _check_sides(file, denoise, plan)
    stamp = stamp_of(JobKind.IMAGE, clock, settings)
    return JobSpec(
        id=stamp.id,
        kind=JobKind.IMAGE,
        pool=card.pool,
        model=fields.text("model") or card.id,
        created_ms=stamp.created_ms,
        deadline_ms=stamp.deadline_ms,
        denoise=denoise,
        cuts=(1,),
        output=file,
        plan=plan,
        owner=owner,
        result_ttl_s=settings.result_ttl_s,
    )


def _pool(fields: Fields, catalogue: Catalogue, mode: Mode, task: str) -> ModelCard:
    # Before the model: a request without a prompt is wrong whatever is served.
    if fields.text("prompt") is None:
        raise MissingField("prompt")
    said = fields.text("task_type")
    if said and said.strip().lower() != task:
        raise UnsupportedField("task_type", f"this endpoint does {task.upper()}")
    return catalogue.choose(fields.text("model") or None, mode)


def video_output(fields: Fields) -> OutputSpec:
    """Return how the videos that a request asks for are encoded.

    Raises:
        InvalidRequest: A field says what no video can be.
    """
    file_format = fields.choice("output_format", ("mp4",)) or "mp4"
    return OutputSpec(file_format, _compression(fields, JobKind.VIDEO))


def image_output(fields: Fields) -> OutputSpec:
    """Return how the pictures that a request asks for are encoded.

    Raises:
        InvalidRequest: A field says what no picture can be.
    """
    file_format = IMAGE_FORMATS[fields.choice("output_format", tuple(IMAGE_FORMATS)) or "png"]
    output, asked = OutputSpec(file_format, _compression(fields, JobKind.IMAGE)), fields.integer("output_compression")
    if file_format == "png" and asked is not None and asked < 100:
        raise InvalidRequest("output_compression", asked, "100 or absent for PNG, which loses nothing")
    return output


def _compression(fields: Fields, kind: JobKind) -> int:
    quality = fields.text("output_quality") or None
    return compression_of(kind, quality, fields.integer("output_compression"))


def _check_sides(output: OutputSpec, denoise: DenoiseSpec, plan: Plan) -> None:
    side = plan.enlarged(max(denoise.width, denoise.height))
    most = LONGEST_SIDES.get(output.format, side)
    if side > most:
        allowed = f"at most {most} on a side of the finished {output.format}"
        raise InvalidRequest("size" if plan.upscale is None else "upscaling_scale", side, allowed)


def _cuts(fields: Fields, denoise: DenoiseSpec, fps: Fraction, plan: Plan) -> tuple[int, ...]:
    chunk_frames = fields.integer("chunk_frames")
    if chunk_frames is None:
        return cut_frames(denoise.num_frames, denoise.width, denoise.height, fps, plan)
    if not 1 <= chunk_frames <= denoise.num_frames:
        raise InvalidRequest("chunk_frames", chunk_frames, f"from 1 to num_frames = {denoise.num_frames}")
    return cuts_of(denoise.num_frames, chunk_frames)


def stamp_of(kind: JobKind, clock: Clock, settings: GatewaySettings) -> Stamp:
    """Return what a job gets when it is accepted."""
    now_ns = clock.now_ns()
    created_ms = now_ns // 1_000_000
    return Stamp(new_job_id(kind, now_ns), created_ms, created_ms + settings.deadline_s * 1000)
