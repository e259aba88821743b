"""Errors of the stages about frames that came from a file: they name what its sender called it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vitascope_core.errors import InvalidRequest
from vitascope_core.job import JobSpec

SIZE = "size"
"""The field that a transform names whose memory does not hold its frames."""


@contextmanager
def errors_name_file(spec: JobSpec) -> Iterator[None]:
    """Let errors about the size of frames name the file that a job reads: whoever sent one said no size.

    Raises:
        InvalidRequest: From the block, about ``spec.ingest.field`` where there is one.
    """
    try:
        yield
    except InvalidRequest as error:
        if spec.ingest is None or error.field != SIZE:
            raise
        raise InvalidRequest(spec.ingest.field, error.value, error.allowed) from error
