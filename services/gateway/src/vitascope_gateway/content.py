"""Finished files over HTTP: variants, ranges, and what is said when there is none."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from vitascope_core.errors import InvalidRequest, ObjectMissing
from vitascope_core.job import FileRecord, JobKind, JobSpec
from vitascope_core.ports import ObjectStore
from vitascope_gateway.errors import NotFound, RangeNotSatisfiable
from vitascope_gateway.ledger import JobView, Status

_RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)
_INDEX = re.compile(r"[0-9]{1,4}")
_PREVIEWS = ("thumbnail", "spritesheet")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file, first byte to last, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.last - self.first + 1


def requested_span(header: str | None, size: int) -> Span | None:
    """Return the single range that a Range header asks for, or None for the whole file.

    What is malformed, or several ranges, is answered with the whole file, as RFC 9110 section 14.2 allows.

    Raises:
        RangeNotSatisfiable: The file has no such bytes.
    """
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None or (not match[1] and not match[2]) or max(len(match[1]), len(match[2])) > 20:
        return None
    if not match[1]:
        length = min(int(match[2]), size)
        if length == 0:
            raise RangeNotSatisfiable(size)
        return Span(size - length, size - 1)
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise RangeNotSatisfiable(size)
    return Span(first, min(last, size - 1))


def chosen_file(view: JobView, variant: str | None) -> FileRecord:
    """Return the file that a content request is about.

    Args:
        view: The job.
        variant: "video" or "image" (also None), a preview's name, or the number of an output.

    Raises:
        NotFound: The job has no files, or not this one.
        InvalidRequest: There is no such variant.
    """
    main = str(view.spec.kind)
    output, name = 0, variant or main
    if _INDEX.fullmatch(name):
        output, name = int(name), main
    elif name != main and (view.spec.kind is JobKind.IMAGE or name not in _PREVIEWS):
        names = [main, *_PREVIEWS, "preview"] if view.spec.kind is JobKind.VIDEO else [main]
        raise InvalidRequest("variant", variant, f"one of {', '.join(names)}, or the number of an output")
    if view.end is None:
        path = f"GET /v1/videos/{view.spec.id}" if view.spec.kind is JobKind.VIDEO else "the request that makes it"
        raise NotFound(f"{main.capitalize()} is not ready yet, use {path} to check status")
    if view.status is Status.FAILED:
        raise NotFound(f"{main.capitalize()} generation has failed, there is nothing to download: {view.end.message}")
    for record in view.end.files:
        if record.output == output and record.variant == name:
            return record
    raise NotFound(f"{main.capitalize()} variant {variant or main} not found")


async def file_response(
    request: Request, store: ObjectStore, view: JobView, record: FileRecord, link: str | None = None
) -> Response:
    """Return a file or the part of it that the request asks for; only its headers for HEAD.

    With a ``link`` the client is sent there, with its range. HEAD is answered here all the same: a signature is good
    for one method, and headers cost nothing.

    Raises:
        RangeNotSatisfiable: The file has no such bytes.
        ObjectMissing: The file has expired.
        StoreUnavailable: The store is away.
    """
    if link is not None and request.method == "GET":
        return RedirectResponse(link, 302, headers={"cache-control": "no-store"})  # the link ends before the file does
    info = await store.stat(record.key)
    if info is None or view.end is None:
        raise ObjectMissing(record.key)
    # A key holds the token of one upload, so its content never changes.
    etag = f'"{view.end.token}-{record.output}-{record.variant}"'
    condition = request.headers.get("if-range")
    wanted = request.headers.get("range") if condition in (None, etag) else None
    span = requested_span(wanted, info.size)
    headers = {
        "accept-ranges": "bytes",
        "content-disposition": f'inline; filename="{filename(view.spec, record)}"',
        "content-length": str(span.length if span else info.size),
        "content-type": record.content_type,
        "etag": etag,
        "x-content-type-options": "nosniff",
    }
    if span is not None:
        headers["content-range"] = f"bytes {span.first}-{span.last}/{info.size}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = store.read(record.key, span.first if span else 0, span.length if span else None)
    # The first piece is taken before the headers go: a file that cannot be read is then still an error.
    first = await anext(pieces, b"")
    return StreamingResponse(_chained(first, pieces), status, headers=headers)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def filename(spec: JobSpec, record: FileRecord) -> str:
    """Return the name under which a file is saved."""
    name = spec.id if spec.outputs == 1 else f"{spec.id}-{record.output}"
    if record.variant in _PREVIEWS:
        name += f"-{record.variant}"
    return f"{name}.{record.content_type.rpartition('/')[2].partition(';')[0]}"
