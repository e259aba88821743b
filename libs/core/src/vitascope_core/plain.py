"""Records as plain JSON values: the form that is stored, whoever stores it."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from fractions import Fraction
from typing import Any


def plain(value: Any) -> Any:
    """Return a record as dicts, lists, strings and numbers; fields that are None are left out.

    `vitascope_platform.records.from_json` reads the JSON of it.
    """
    if dataclasses.is_dataclass(value):
        items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: plain(item) for name, item in items if item is not None}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, (StrEnum, Fraction)):
        return str(value)
    return value
