"""Records as protobuf: dataclasses of the core to messages and back.

The dataclasses are what the product speaks; the messages are what it stores and sends (JSON form in key-value
buckets, binary on the bus). Readers ignore fields they do not know and fill absent ones with the dataclass's defaults,
so that two neighbouring versions read each other's records.
"""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from vitascope_core.card import ModelCard, StageCard
from vitascope_core.errors import VitascopeError
from vitascope_core.job import ChunkRecord, JobEnd, JobSpec, SourceRecord
from vitascope_core.plain import plain
from vitascope_core.task import Task
from vitascope_platform.v1 import records_pb2

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)
else:
    R = TypeVar("R")

MESSAGES: dict[type, type[Message]] = {
    JobSpec: records_pb2.JobSpec,
    SourceRecord: records_pb2.SourceRecord,
    ChunkRecord: records_pb2.ChunkRecord,
    JobEnd: records_pb2.JobEnd,
    Task: records_pb2.Task,
    ModelCard: records_pb2.ModelCard,
    StageCard: records_pb2.StageCard,
}


class BadRecord(VitascopeError):
    """A stored record cannot be read."""

    code = "bad_record"


def to_json(record: DataclassInstance) -> bytes:
    """Return the record as the JSON form of its message."""
    return json_format.MessageToJson(_message(record), preserving_proto_field_name=True, indent=None).encode()


def from_json(kind: type[R], data: bytes) -> R:
    """Return the record of ``kind`` that `to_json` wrote, perhaps in another version.

    Raises:
        BadRecord: The data is not the JSON form of that message.
    """
    try:
        message = json_format.Parse(data, MESSAGES[kind](), ignore_unknown_fields=True)
        return _record(kind, message)
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise BadRecord(f"not a {kind.__name__}: {error}") from error


def to_bytes(record: DataclassInstance) -> bytes:
    """Return the record as its binary message."""
    return _message(record).SerializeToString()


def from_bytes(kind: type[R], data: bytes) -> R:
    """Return the record of ``kind`` that `to_bytes` wrote, perhaps in another version.

    Raises:
        BadRecord: The data is not that message.
    """
    try:
        return _record(kind, MESSAGES[kind].FromString(data))
    except (DecodeError, ValueError, TypeError) as error:
        raise BadRecord(f"not a {kind.__name__}: {error}") from error


def _message(record: DataclassInstance) -> Message:
    return json_format.ParseDict(plain(record), MESSAGES[type(record)]())


def _record(kind: type[R], message: Message) -> R:
    values: dict[str, Any] = {}
    descriptors = message.DESCRIPTOR.fields_by_name
    for name, hint in _hints(kind).items():
        many = descriptors[name].is_repeated
        if many or message.HasField(name):
            values[name] = _value(hint, getattr(message, name))
    return kind(**values)


def _value(hint: Any, value: Any) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _value(next(arg for arg in get_args(hint) if arg is not type(None)), value)
    if origin is tuple:
        return tuple(_value(get_args(hint)[0], item) for item in value)
    if origin is dict:
        return dict(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _record(hint, value)
    return hint(value)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
