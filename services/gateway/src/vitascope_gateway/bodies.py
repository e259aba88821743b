"""Reading a request's body: JSON, multipart or urlencoded, made into the same fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import parse_qsl

from starlette.datastructures import UploadFile
from starlette.requests import Request

from vitascope_core.errors import InvalidRequest, InvalidType, VitascopeError
from vitascope_gateway.fields import Fields, Upload

WRAPPERS = ("extra_body", "extra_json", "extra_params", "extra_args")
"""Fields whose members count as fields of the request: SDK users write ``extra_body`` where their client has none."""

MAX_PARTS = 1000
MAX_DEPTH = 8

_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])+)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")


class BadBody(VitascopeError):
    """The body cannot be read at all."""

    code = "invalid_body"


async def read_fields(request: Request, max_text_part_bytes: int) -> Fields:
    """Return the fields of a request, whatever form its body has.

    Args:
        request: Its body must not have been read; its size is bounded by `vitascope_gateway.middleware.BodyLimit`.
        max_text_part_bytes: Largest text part of a multipart body.

    Raises:
        BadBody: The body is not what its content type says.
        InvalidRequest: A field is sent in two ways that exclude each other.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return form_fields(await _multipart(request, max_text_part_bytes))
    body = await request.body()
    # curl -d labels JSON as a form unless told otherwise.
    if kind == "application/x-www-form-urlencoded" and not body.lstrip().startswith(b"{"):
        return form_fields(_urlencoded(body))
    if kind not in ("", "application/x-www-form-urlencoded", "text/plain", "application/json") and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise BadBody(f"Content-Type {kind!r} is not understood: send application/json or multipart/form-data")
    return Fields(_unwrapped(_json_object(body)))


def _json_object(body: bytes) -> dict[str, object]:
    if not body.strip():
        return {}
    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored
    except (ValueError, RecursionError) as error:
        raise BadBody("The body is not valid JSON") from error
    if not isinstance(value, dict):
        raise BadBody("The body must be a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _urlencoded(body: bytes) -> list[tuple[str, object]]:
    try:
        return list(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS))
    except ValueError as error:
        raise BadBody("The body is not a valid urlencoded form") from error


async def _multipart(request: Request, max_text_part_bytes: int) -> list[tuple[str, object]]:
    async with request.form(max_files=16, max_fields=MAX_PARTS, max_part_size=max_text_part_bytes) as form:
        return [
            (name, Upload(value.filename or "") if isinstance(value, UploadFile) else value)
            for name, value in form.multi_items()
        ]


def form_fields(pairs: Iterable[tuple[str, object]]) -> Fields:
    """Return the fields of a form's parts, texts and `Upload`, in order.

    Raises:
        BadBody: A text is not Unicode.
        InvalidRequest: A field is sent in two ways that exclude each other.
    """
    values: dict[str, object] = {}
    for name, value in pairs:
        try:
            name.encode()
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            raise BadBody("The form holds text that is not Unicode") from error
        match = _KEY.fullmatch(name)
        if match is None:
            _put(values, name, value)
        else:
            _put_nested(values, match[1], _BRACKET.findall(match[2]), value)
    return Fields(_unwrapped(values), form=True)


def _put(values: dict[str, object], name: str, value: object) -> None:
    """Keep a plain field; a repeated one becomes a list, which no reader of a single value accepts."""
    if name not in values:
        values[name] = value
    elif isinstance(values[name], list):
        values[name] = [*_list(values[name]), value]
    elif isinstance(values[name], dict):
        raise InvalidRequest(name, value, "either a value or an object, not both")
    else:
        values[name] = [values[name], value]


def _put_nested(values: dict[str, object], name: str, path: list[str], value: object) -> None:
    """Keep a field named like ``a[b]``, ``a[]`` or ``a[][b]`` in the object or list that its name describes."""
    if len(path) > MAX_DEPTH:
        raise InvalidRequest(name, "[" + "][".join(path) + "]", f"nested at most {MAX_DEPTH} deep")
    values[name] = _grown(values.get(name), path, value, name)


def _grown(node: object, path: list[str], value: object, name: str) -> object:
    if not path:
        if node is not None:
            raise InvalidRequest(name, value, "sent once")
        return value
    token, rest = path[0], path[1:]
    if token == "" or token.isdecimal():
        if node is not None and not isinstance(node, list):
            raise InvalidRequest(name, value, "either a list or something else, not both")
        items = _list(node)
        # An empty bracket goes on with the last item while that still lacks the next key: a[][x]=1, a[][y]=2.
        place = int(token) if token and len(token) < 6 else _open_place(items, rest)
        if place < len(items):
            items[place] = _grown(items[place], rest, value, name)
        else:
            items.append(_grown(None, rest, value, name))
        return items
    if node is not None and not isinstance(node, dict):
        raise InvalidRequest(name, value, "either an object or something else, not both")
    members: dict[str, object] = {} if node is None else node
    members[token] = _grown(members.get(token), rest, value, f"{name}.{token}")
    return members


def _open_place(items: list[object], rest: list[str]) -> int:
    last = items[-1] if items else None
    if rest and isinstance(last, dict) and (rest[0] not in last or len(rest) > 1):
        return len(items) - 1
    return len(items)


def _list(node: object) -> list[object]:
    return node if isinstance(node, list) else []


def _unwrapped(values: dict[str, object]) -> dict[str, object]:
    """Lift the members of `WRAPPERS` to the top, where what is there already wins."""
    found = {name: value for name, value in values.items() if name not in WRAPPERS}
    for wrapper in WRAPPERS:
        inner = values.get(wrapper)
        if isinstance(inner, str):
            inner = _parsed(wrapper, inner)
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise InvalidType(wrapper, inner, "an object")
        for name, value in inner.items():
            if found.get(name) is None:
                found[name] = value
    return found


def _parsed(name: str, text: str) -> object:
    if not text.strip():
        return None
    try:
        return _json_object(text.encode())
    except BadBody as error:
        raise InvalidRequest(name, text, "a JSON object") from error
