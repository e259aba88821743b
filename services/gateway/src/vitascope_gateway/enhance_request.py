"""A request to process an existing video: its fields, and the file, brought along or copied from a finished job."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import Request

from vitascope_core.errors import StoreUnavailable
from vitascope_core.job import JobKind, Media
from vitascope_gateway.desk import Desk
from vitascope_gateway.enhancement import VIDEO, Given, Named, finished_file, named_video
from vitascope_gateway.fields import Fields, Upload
from vitascope_gateway.uploads import read_form_with_file


@asynccontextmanager
async def received(desk: Desk, request: Request) -> AsyncIterator[tuple[Fields, Given, Path]]:
    """Yield the request's fields, what is known of its file, and where that lies while the block runs.

    Raises:
        BadBody, BodyTooLarge, ClientDisconnect: See `read_form_with_file`.
        InvalidRequest: The request brings no file and names no finished video.
        NotFound: There is no video of this id that the request may see.
        StoreUnavailable: A store is away, or the disk has no room.
    """
    # The folder goes whatever happens, and with it what a client sent that then left or was refused.
    with tempfile.TemporaryDirectory(prefix="vitascope-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "input"
        try:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "multipart/form-data":
                fields = await read_form_with_file(request, VIDEO, path)
            else:
                fields = await desk.fields(request)
            named = named_video(fields)
            given = _sent(fields, path) if named is None else await _copied(desk, request, fields, named, path)
        except OSError as error:
            raise StoreUnavailable(f"the folder for temporary files cannot be used: {error.strerror}") from error
        yield fields, given, path


def _sent(fields: Fields, path: Path) -> Given:
    upload = fields.raw(VIDEO)
    name = upload.filename if isinstance(upload, Upload) else ""
    return Given(name, path.stat().st_size)


async def _copied(desk: Desk, request: Request, fields: Fields, named: Named, path: Path) -> Given:
    """Copy a finished file, so that the new job does not depend on how long the old one is kept."""
    view = await desk.job(request, named.id, JobKind.VIDEO)
    record = finished_file(named, view.end, fields.integer("variant"), view.spec.outputs)
    with path.open("wb") as file:
        async for piece in desk.results.read(record.key):
            await asyncio.to_thread(file.write, piece)
    media = Media(record.width, record.height, record.fps, record.frames) if record.fps else None
    return Given(f"{named.id}.mp4", record.size, view.spec.model, named.id, media, named.field)
