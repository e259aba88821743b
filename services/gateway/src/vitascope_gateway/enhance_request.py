"""A request to process an existing file: its fields, and the file, brought along or copied from a finished job."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from starlette.requests import Request

from vitascope_core.errors import StoreUnavailable
from vitascope_core.job import JobKind, Media
from vitascope_gateway.desk import Desk
from vitascope_gateway.enhancement import VIDEO, Named, finished_file, named_video
from vitascope_gateway.fields import Fields, Upload
from vitascope_gateway.ingestion import Given
from vitascope_gateway.picture_enhancement import IMAGE, sent_picture
from vitascope_gateway.uploads import read_form_with_file


@asynccontextmanager
async def received_video(desk: Desk, request: Request) -> AsyncIterator[tuple[Fields, Given, Path]]:
    """Yield the request's fields, what is known of its video, and where that lies while the block runs.

    Raises:
        BadBody, BodyTooLarge, ClientDisconnect: See `read_form_with_file`.
        InvalidRequest: The request brings no file and names no finished video.
        NotFound: There is no video of this id that the request may see.
        StoreUnavailable: A store is away, or the disk has no room.
    """
    async with _received(desk, request, VIDEO) as (fields, path):
        with _folder_errors():
            named = named_video(fields)
            if named is None:
                given = _sent(VIDEO, fields.raw(VIDEO), path)
            else:
                given = await _copied(desk, request, fields, named, path)
        yield fields, given, path


@asynccontextmanager
async def received_picture(desk: Desk, request: Request) -> AsyncIterator[tuple[Fields, Given, Path]]:
    """Yield the request's fields, what is known of its picture, and where that lies while the block runs.

    Raises:
        BadBody, BodyTooLarge, ClientDisconnect: See `read_form_with_file`.
        InvalidRequest: The request brings no file.
        StoreUnavailable: The disk has no room.
    """
    async with _received(desk, request, IMAGE) as (fields, path):
        with _folder_errors():
            given = _sent(IMAGE, sent_picture(fields), path)
        yield fields, given, path


@asynccontextmanager
async def _received(desk: Desk, request: Request, field: str) -> AsyncIterator[tuple[Fields, Path]]:
    """Yield the request's fields, and where the file of ``field`` lies if it brings one."""
    # The folder goes whatever happens, and with it what a client sent that then left or was refused.
    with _folder_errors():
        folder = tempfile.TemporaryDirectory(prefix="vitascope-", ignore_cleanup_errors=True)
    with folder as name:
        path = Path(name) / "input"
        with _folder_errors():
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "multipart/form-data":
                fields = await read_form_with_file(request, field, path)
            else:
                fields = await desk.fields(request)
        yield fields, path


@contextmanager
def _folder_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the folder for temporary files cannot be used: {error.strerror}") from error


def _sent(field: str, upload: object, path: Path) -> Given:
    name = upload.filename if isinstance(upload, Upload) else ""
    return Given(name, path.stat().st_size, field)


async def _copied(desk: Desk, request: Request, fields: Fields, named: Named, path: Path) -> Given:
    """Copy a finished file, so that the new job does not depend on how long the old one is kept."""
    view = await desk.job(request, named.id, JobKind.VIDEO)
    record = finished_file(named, view.end, fields.integer("variant"), view.spec.outputs)
    with path.open("wb") as file:
        async for piece in desk.results.read(record.key):
            await asyncio.to_thread(file.write, piece)
    media = Media(record.width, record.height, record.fps, record.frames) if record.fps else None
    return Given(f"{named.id}.mp4", record.size, named.field, view.spec.model, named.id, media)
