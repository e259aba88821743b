"""From a request about an existing video to a job's spec."""

from __future__ import annotations

from typing import NamedTuple

from vitascope_core.errors import InvalidRequest, InvalidType, MissingField, UnsupportedField
from vitascope_core.geometry import LONGEST_SIDE
from vitascope_core.job import FileRecord, JobEnd, JobKind, JobSpec
from vitascope_core.plan import Plan, StageName
from vitascope_core.ports import Clock
from vitascope_gateway.admission import QUALITY_HINTS, video_output
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.fields import Fields, Upload
from vitascope_gateway.ingestion import Given, ingest_job
from vitascope_gateway.postprocessing import check_frame, plan_of
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.vocabulary import ENHANCE_FIELDS

VIDEO = "video"
VIDEO_ID = "video_id"

MAX_CHUNK_FRAMES = 10_000


class Named(NamedTuple):
    """The id of a video, and the field that says it, as the client wrote it."""

    id: str
    field: str


def named_video(fields: Fields) -> Named | None:
    """Return the finished video that a request is about; None if it brings a file.

    ``video`` is a file or an object with the ``id``, as where OpenAI's API edits videos; ``video_id`` is the id itself.

    Raises:
        InvalidRequest: It says neither or both, or something else, such as a URL.
    """
    video = fields.raw(VIDEO)
    video_id = fields.text(VIDEO_ID) or None
    if video is not None and video_id is not None:
        raise InvalidRequest(VIDEO_ID, video_id, f"absent where {VIDEO} is sent")
    if isinstance(video, Upload):
        return None
    if video is None:
        if video_id is None:
            raise MissingField(VIDEO)
        return Named(video_id, VIDEO_ID)
    if isinstance(video, dict):
        if set(video) == {"id"} and isinstance(video["id"], str):
            return Named(video["id"], f"{VIDEO}.id")
        raise InvalidRequest(VIDEO, video, 'a file, or an object with the "id" of a finished video and nothing else')
    if isinstance(video, list):
        raise InvalidRequest(VIDEO, video, "a single file")
    raise InvalidType(VIDEO, video, 'a file, or an object with the "id" of a finished video; URLs are not fetched')


def finished_file(named: Named, end: JobEnd | None, variant: int | None, outputs: int) -> FileRecord:
    """Return the file of a finished video that a request is about.

    Args:
        named: The video.
        end: How it ended, if it has.
        variant: Number of the output; None for the only one.
        outputs: How many it has.

    Raises:
        InvalidRequest: It is not finished, or does not say which of its outputs.
    """
    files = [] if end is None else [file for file in end.files if file.variant == str(JobKind.VIDEO)]
    if not files:
        raise InvalidRequest(named.field, named.id, "the id of a video that is completed")
    if variant is None and outputs > 1:
        raise InvalidRequest("variant", variant, f"from 0 to {outputs - 1}: the video has {outputs} outputs")
    for file in files:
        if file.output == (variant or 0):
            return file
    raise InvalidRequest("variant", variant, f"from 0 to {outputs - 1}")


def admit_enhancement(
    fields: Fields, given: Given, catalogue: Catalogue, owner: str, clock: Clock, settings: GatewaySettings
) -> JobSpec:
    """Return the spec of a new job that processes an existing file, to be stored under ``spec.ingest.key``.

    Raises:
        InvalidRequest: A field is missing, wrong or not supported; named as the client wrote it.
    """
    ENHANCE_FIELDS.check(fields)
    fields.choice("quality", QUALITY_HINTS)
    output = video_output(fields)
    wanted = plan_of(fields, catalogue)
    if not wanted.transforms:
        raise UnsupportedField(
            "enable_frame_interpolation", "without it, or enable_upscaling, there is nothing to be done"
        )
    plan = Plan(StageName.INGEST, wanted.interpolate, wanted.upscale)
    _check_known(given, plan, catalogue)
    chunk_frames = _chunk_frames(fields)
    return ingest_job(JobKind.VIDEO, given, plan, output, catalogue, owner, clock, settings, chunk_frames=chunk_frames)


def _chunk_frames(fields: Fields) -> int:
    count = fields.integer("chunk_frames")
    if count is not None and not 1 <= count <= MAX_CHUNK_FRAMES:
        raise InvalidRequest("chunk_frames", count, f"from 1 to {MAX_CHUNK_FRAMES}")
    return count or 0


def _check_known(given: Given, plan: Plan, catalogue: Catalogue) -> None:
    """Refuse what the stages would: of a file from outside, they are the first to see how large it is."""
    known = given.known
    if known is None:
        return
    check_frame(plan, catalogue, known.width, known.height, given.field)
    side = plan.enlarged(max(known.width, known.height))
    if side > LONGEST_SIDE:
        raise InvalidRequest("upscaling_scale", side, f"such that the video has at most {LONGEST_SIDE} on a side")
