"""Dataclasses as plain JSON values and back: what crosses between the engine's process and its parent."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return dataclasses as objects, tuples as lists, fractions as ``"num/den"`` and enums as their values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(kind: type[T], value: Any) -> T:
    """Return the value of type ``kind`` that `to_plain` was given.

    Raises:
        TypeError: The value does not fit the type.
    """
    return cast(T, _revived(kind, value))


def _revived(kind: Any, value: Any) -> Any:
    if get_origin(kind) in (types.UnionType, Union):
        return None if value is None else _revived(next(k for k in get_args(kind) if k is not type(None)), value)
    if get_origin(kind) is tuple:
        return tuple(_revived(get_args(kind)[0], item) for item in value)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{name: _revived(hints[name], item) for name, item in value.items()})
    if isinstance(kind, type) and issubclass(kind, (Enum, Fraction)):
        return kind(value)
    # JSON writes 5.0 as 5 in some encoders; a float stays one.
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(kind, type) or not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of type {kind}")
    return value
