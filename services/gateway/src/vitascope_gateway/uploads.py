"""Reading a form with a large file in it: the file goes to disk as it comes, so memory holds none of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from vitascope_gateway.bodies import BadBody, form_fields
from vitascope_gateway.fields import Fields, Upload

MAX_FIELDS = 100
MAX_TEXT_BYTES = 64 * 1024
"""Of a text part: the fields beside a file are short."""
MAX_HEADER_BYTES = 8 * 1024
"""Of all headers of a part."""


async def read_form_with_file(request: Request, field: str, path: Path) -> Fields:
    """Return the fields of a multipart request; the file of ``field`` lies at ``path`` then.

    Files of other fields are dropped as they come.

    Args:
        request: Its body must not have been read; its size is bounded by `vitascope_gateway.middleware.BodyLimit`.
        field: The field that takes a file; ``field[]`` and ``field[0]`` as well, as some clients name it.
        path: Where the file goes.

    Raises:
        BadBody: The body is no such form, or it holds too much beside the file.
        BodyTooLarge: It is over the limit.
        ClientDisconnect: The client has left.
        OSError: There is no room on the disk.
    """
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadBody("The multipart body has no boundary")
    form = _Form(field, path)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        async for data in request.stream():
            parser.write(data)
            if form.pending:
                await asyncio.to_thread(form.flush)
        parser.finalize()
    except FormParserError as error:
        raise BadBody("The body is not a valid multipart form") from error
    finally:
        form.close()
    if not form.ended:
        raise BadBody("The multipart body ends early")
    return form_fields(form.parts)


class _Form:
    """The parts as the parser tells of them. Data of the file waits for `flush`, which may block."""

    def __init__(self, field: str, path: Path) -> None:
        self._field = field
        self._path = path
        self._file: IO[bytes] | None = None
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._size = 0
        self._current = ""
        self._text: bytearray | None = None
        self._keeps = False
        self.parts: list[tuple[str, object]] = []
        self.pending: list[bytes] = []
        self.ended = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._over,
        }

    def flush(self) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
        for data in self.pending:
            self._file.write(data)
        self.pending.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        if len(self.parts) >= MAX_FIELDS:
            raise BadBody(f"The form has more than {MAX_FIELDS} fields")
        self._headers, self._size = {}, 0
        self._text, self._keeps = None, False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_HEADER_BYTES:
            raise BadBody("The headers of a part are too long")

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._current = _decoded(options.get(b"name", b""))
        if not self._current:
            raise BadBody("A part of the form has no name")
        if b"filename" not in options:
            self._text = bytearray()
            return
        self._keeps = self._is_field(self._current) and not any(self._is_field(name) for name, _ in self.parts)
        # Names are for people: whatever folders are in it lead nowhere here.
        filename = _decoded(options[b"filename"]).replace("\\", "/").rpartition("/")[2][:200]
        self.parts.append((self._current, Upload(filename, self._path if self._keeps else None)))
        if self._keeps:
            self.pending.append(b"")  # so that an empty file is there as well

    def _is_field(self, name: str) -> bool:
        return name.partition("[")[0] == self._field

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            if len(self._text) + end - start > MAX_TEXT_BYTES:
                raise BadBody(f"The field {self._current[:80]} is longer than {MAX_TEXT_BYTES} bytes")
            self._text += data[start:end]
        elif self._keeps:
            self.pending.append(data[start:end])

    def _end(self) -> None:
        if self._text is not None:
            self.parts.append((self._current, _decoded(bytes(self._text))))

    def _over(self) -> None:
        self.ended = True


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadBody("The form holds text that is not UTF-8") from error
