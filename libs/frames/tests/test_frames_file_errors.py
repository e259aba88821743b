"""A transform that has no memory for the frames of a file names what its sender called it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vitascope_core.errors import InvalidRequest
from vitascope_core.handling import Work
from vitascope_core.job import IngestSpec, JobKind
from vitascope_core.keys import chunk_key
from vitascope_core.plan import Plan, StageName, UpscaleOptions
from vitascope_core.task import Task
from vitascope_frames.chunk import Chunk
from vitascope_frames.codec import dumps
from vitascope_frames.transform_handler import TransformHandler


class Full:
    """Has memory for nothing."""

    def __init__(self, field: str) -> None:
        self.error = InvalidRequest(field, "9x9", "smaller")

    def apply(self, chunk: Chunk, options) -> Chunk:
        raise self.error


class FullStream(Full):
    """The same, where frames are passed on as they are made."""

    def stream(self, chunk: Chunk, options):
        raise self.error
        yield chunk.frames


@pytest.mark.parametrize(
    ("ingest", "said", "told"),
    [
        (IngestSpec("k"), "size", "video must be smaller, got '9x9'"),
        (IngestSpec("k", field="image"), "size", "image must be smaller, got '9x9'"),
        (IngestSpec("k", field="input"), "upscaling_scale", "upscaling_scale must be smaller, got '9x9'"),
        (None, "size", "size must be smaller, got '9x9'"),
    ],
)
@pytest.mark.parametrize("transform", [Full, FullStream])
async def test_the_field_is_one_that_the_request_has(
    make_spec, store, control, transform, ingest, said: str, told: str
) -> None:
    source = StageName.DENOISE if ingest is None else StageName.INGEST
    spec = replace(make_spec(plan=Plan(source, upscale=UpscaleOptions(2))), ingest=ingest, kind=JobKind.VIDEO)
    chunk = Chunk(np.zeros((1, 9, 9, 3), np.uint8), 0, 0, 0, last=True, fps=Fraction(8))
    store.objects[chunk_key(spec.id, 1, source, 0, 0)] = dumps(chunk)
    work = Work(Task(spec.id, StageName.UPSCALE, attempt=1, output=0, index=0), spec, 1, "token", control)

    with pytest.raises(InvalidRequest) as raised:
        [record async for record in TransformHandler(transform(said), store).chunks(work)]
    assert (str(raised.value), raised.value.field) == (told, told.partition(" ")[0])
