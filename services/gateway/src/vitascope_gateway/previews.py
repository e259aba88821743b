"""Intermediate pictures: what a job looks like while it is denoised."""

from __future__ import annotations

from starlette.responses import Response

from vitascope_core.card import ModelCard
from vitascope_core.errors import InvalidRequest, ObjectMissing, UnsupportedField
from vitascope_core.job import SourceRecord
from vitascope_core.keys import preview_key
from vitascope_gateway.desk import Desk
from vitascope_gateway.errors import NotFound
from vitascope_gateway.fields import Fields
from vitascope_gateway.ledger import JobView

VARIANT = "preview"
"""How a content request asks for the newest one."""

MAX_PREVIEWS = 10
MAX_PARTIAL_IMAGES = 3
"""As in OpenAI's API."""


def video_previews(fields: Fields, card: ModelCard) -> int:
    """Return how many previews a video request asks for.

    Raises:
        InvalidRequest: Too many, or the model shows none.
    """
    return _asked(fields, "previews", MAX_PREVIEWS, card)


def partial_images(fields: Fields, card: ModelCard) -> int:
    """Return how many previews an image request asks for.

    Raises:
        InvalidRequest: Too many, for an answer that is not streamed, or the model shows none.
    """
    asked = _asked(fields, "partial_images", MAX_PARTIAL_IMAGES, card)
    if asked and not fields.flag("stream"):
        raise InvalidRequest("partial_images", asked, "0 unless stream is true: only events can carry them")
    return asked


def _asked(fields: Fields, name: str, most: int, card: ModelCard) -> int:
    asked = fields.integer(name) or 0
    if not 0 <= asked <= most:
        raise InvalidRequest(name, asked, f"from 0 to {most}")
    if asked and "previews" not in card.honours:
        raise UnsupportedField(name, f"{card.id} shows nothing before it is finished")
    return asked


async def preview(desk: Desk, job_id: str, attempt: int, index: int) -> bytes | None:
    """Return a preview's file, or None if that attempt did not make it or the job has ended.

    Raises:
        StoreUnavailable: The store is away.
    """
    try:
        return await desk.frames.get(preview_key(job_id, attempt, index))
    except ObjectMissing:
        return None


async def preview_response(desk: Desk, view: JobView) -> Response:
    """Return the newest preview of a video that is being made.

    Raises:
        NotFound: There is none yet, none was asked for, or the video is finished.
    """
    if not view.spec.denoise.previews:
        raise NotFound("Video has no previews: its request did not ask for any")
    if view.end is not None:
        raise NotFound("Video is finished, its previews are gone: use the variants video, thumbnail or spritesheet")
    source = view.source or SourceRecord(0, "")
    for index in reversed(range(source.previews)):
        data = await preview(desk, view.spec.id, source.attempt, index)
        if data is not None:
            return Response(data, media_type="image/webp", headers={"cache-control": "no-store"})
    raise NotFound("Video has no preview yet, try again in a moment")
