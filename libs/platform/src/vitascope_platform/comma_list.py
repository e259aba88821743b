"""A variable that holds several values, separated by commas."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

T = TypeVar("T")


def split_commas(value: object) -> object:
    """Return the parts of a text without the blanks around them; empty ones are left out. Anything else stays."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaList = Annotated[tuple[T, ...], NoDecode, BeforeValidator(split_commas)]
"""The type of such a setting; ``CommaList[int]`` holds whole numbers."""
