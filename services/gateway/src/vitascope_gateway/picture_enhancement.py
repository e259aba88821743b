"""From a request about an existing picture to a job's spec, and from a job's error to the field that was wrong."""

from __future__ import annotations

from vitascope_core.errors import (
    DamagedMedia,
    InvalidRequest,
    InvalidType,
    MediaTooLarge,
    MissingField,
    UnsupportedMedia,
)
from vitascope_core.job import JobEnd, JobKind, JobSpec
from vitascope_core.plan import Plan, StageName
from vitascope_core.ports import Clock
from vitascope_gateway.admission import QUALITY_HINTS, image_output
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.errors import InputRefused
from vitascope_gateway.fields import Fields, Upload
from vitascope_gateway.ingestion import Given, ingest_job
from vitascope_gateway.postprocessing import upscaling_of
from vitascope_gateway.settings import GatewaySettings
from vitascope_gateway.vocabulary import ENHANCE_IMAGE_FIELDS

IMAGE = "image"

_REFUSALS = frozenset(kind.code for kind in (UnsupportedMedia, DamagedMedia, MediaTooLarge, InvalidRequest))
"""Codes of jobs that could not do what was asked of them: sent again they could not either."""


def sent_picture(fields: Fields) -> Upload:
    """Return the file that a request brings, in ``image`` or, as some clients name it, ``image[]``.

    Raises:
        InvalidRequest: There is none, or more than one, or something else.
    """
    value = fields.raw(IMAGE)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Upload):
        return value
    if value is None:
        raise MissingField(IMAGE)
    if isinstance(value, list):
        raise InvalidRequest(IMAGE, value, "a single file")
    raise InvalidType(IMAGE, value, "a file of a multipart form; URLs are not fetched")


def admit_picture(
    fields: Fields, given: Given, catalogue: Catalogue, owner: str, clock: Clock, settings: GatewaySettings
) -> JobSpec:
    """Return the spec of a new job that enlarges an existing picture, to be stored under ``spec.ingest.key``.

    Raises:
        InvalidRequest: A field is missing, wrong or not supported; named as the client wrote it.
    """
    ENHANCE_IMAGE_FIELDS.check(fields)
    fields.choice("quality", QUALITY_HINTS)
    fields.choice("response_format", ("url", "b64_json"))
    output = image_output(fields)
    plan = Plan(StageName.INGEST, upscale=upscaling_of(fields, catalogue))
    return ingest_job(JobKind.IMAGE, given, plan, output, catalogue, owner, clock, settings)


def refusal(end: JobEnd) -> InputRefused | None:
    """Return what a failed job says against its request; None if it failed for another reason.

    Only who opens the picture sees what it is, so that it is no good is the job's end rather than an answer at once.
    """
    if end.code not in _REFUSALS:
        return None
    named = next((name for name in ENHANCE_IMAGE_FIELDS.honoured if end.message.startswith(f"{name} ")), IMAGE)
    return InputRefused(end.code, end.message, named)
