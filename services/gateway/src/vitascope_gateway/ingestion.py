"""The spec of a job that reads an existing file. Nothing is decoded here: the file shows what it is later."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from vitascope_core.errors import InvalidRequest
from vitascope_core.job import NO_DENOISING, IngestSpec, JobKind, JobSpec, Media, OutputSpec
from vitascope_core.keys import input_key
from vitascope_core.plan import Plan
from vitascope_core.ports import Clock
from vitascope_gateway.admission import stamp_of
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.postprocessing import most_pixels
from vitascope_gateway.settings import GatewaySettings


class Given(NamedTuple):
    """The file that a job reads, before it is stored.

    Attributes:
        name: As the client called it.
        size: Bytes.
        field: What the client may change to send another.
        model: The model that made it; "" for a file from outside.
        video_id: The job that made it; "" for a file from outside.
        known: What is known of it.
    """

    name: str
    size: int
    field: str
    model: str = ""
    video_id: str = ""
    known: Media | None = None


def ingest_job(
    kind: JobKind,
    given: Given,
    plan: Plan,
    output: OutputSpec,
    catalogue: Catalogue,
    owner: str,
    clock: Clock,
    settings: GatewaySettings,
    *,
    chunk_frames: int = 0,
) -> JobSpec:
    """Return the spec of a new job whose frames are read from a file, to be stored under ``spec.ingest.key``.

    Args:
        kind: What the file is, and what is made of it.
        given: The file.
        plan: What becomes of its frames.
        output: How the finished file is encoded.
        catalogue: The cards of what is installed.
        owner: Whose job it is.
        clock: Says when it is accepted.
        settings: Say how long it may take, and how long its files are kept.
        chunk_frames: Frames of a chunk; 0 for as many as are usual.

    Raises:
        InvalidRequest: The file is empty.
    """
    if not given.size:
        raise InvalidRequest(given.field, given.name, "a file that is not empty")
    stamp = stamp_of(kind, clock, settings)
    return JobSpec(
        id=stamp.id,
        kind=kind,
        pool="",
        model=given.model,
        created_ms=stamp.created_ms,
        deadline_ms=stamp.deadline_ms,
        denoise=NO_DENOISING,
        cuts=(),
        output=output,
        fps=Fraction(0),
        plan=plan,
        owner=owner,
        result_ttl_s=settings.result_ttl_s,
        ingest=IngestSpec(
            key=input_key(stamp.id, 0),
            name=given.name,
            size=given.size,
            video_id=given.video_id,
            known=given.known,
            chunk_frames=chunk_frames,
            field=given.field,
            max_pixels=most_pixels(plan.upscale, catalogue) if plan.upscale else 0,
        ),
    )
