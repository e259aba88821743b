"""The fields of a request, read with their types: strict for JSON, from text for forms."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitascope_core.errors import InvalidRequest, InvalidType

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}(?:\.0*)?")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class Upload:
    """A file part of a form.

    Attributes:
        path: Where its content lies while the request is answered; None where no field takes a file: it is not read.
    """

    filename: str
    path: Path | None = None


class Fields:
    """The fields of one request by name.

    Null is the same as absent. So is an empty text in a form, but only where a number, a flag or a choice is read: an
    empty ``negative_prompt`` says something.

    Args:
        values: Parsed JSON values, or texts and `Upload` from a form.
        form: Whether texts stand for numbers and flags.
    """

    def __init__(self, values: Mapping[str, object], *, form: bool = False) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._form = form

    def __iter__(self) -> Iterator[str]:
        """Return the names of the fields that are there."""
        return iter(self._values)

    def has(self, name: str) -> bool:
        """Whether the field says something."""
        return self._value(name) is not None

    def raw(self, name: str) -> object:
        """Return what the field says, whatever it is; None if it says nothing."""
        return self._value(name)

    def text(self, name: str) -> str | None:
        """Return a text as it is, also an empty one.

        Raises:
            InvalidType: It is no text.
        """
        value = self._values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise _wrong_type(name, value, "a string")

    def integer(self, name: str) -> int | None:
        """Return a whole number; 2.0 is one, true is not.

        Raises:
            InvalidType: It is none.
        """
        value = self._value(name)
        return None if value is None else self._as_integer(name, value)

    def number(self, name: str, *, text: bool = False) -> float | None:
        """Return a finite number.

        Args:
            name: The field.
            text: Whether JSON may have it as a text as well, like OpenAI's ``seconds``.

        Raises:
            InvalidType: It is no number.
            InvalidRequest: It is not finite.
        """
        value = self._value(name)
        if value is None:
            return None
        if isinstance(value, str) and (self._form or text):
            try:
                value = float(value)
            except ValueError as error:
                raise InvalidType(name, value, "a number") from error
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _wrong_type(name, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise InvalidRequest(name, value, "a finite number")
        return number

    def flag(self, name: str) -> bool | None:
        """Return true or false; forms may also say 1, 0, yes, no, on, off.

        Raises:
            InvalidType: It is neither.
        """
        value = self._value(name)
        if value is None or isinstance(value, bool):
            return value
        if self._form and isinstance(value, str):
            word = value.strip().lower()
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
        raise _wrong_type(name, value, "true or false")

    def choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """Return one of ``allowed``.

        Raises:
            InvalidType: It is no text.
            InvalidRequest: It is another text.
        """
        value = self._value(name)
        if value is None:
            return None
        text = self.text(name)
        if text not in allowed:
            raise InvalidRequest(name, text, "one of " + ", ".join(allowed))
        return text

    def integers(self, name: str) -> int | tuple[int, ...] | None:
        """Return a whole number or a list of them; in forms a list is a repeated field or JSON text.

        Raises:
            InvalidType: It is neither.
        """
        value = self._value(name)
        if self._form and isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise InvalidType(name, value, "an integer or a list of integers") from error
        if isinstance(value, list):
            return tuple(self._as_integer(f"{name}[{i}]", item) for i, item in enumerate(value))
        return None if value is None else self._as_integer(name, value)

    def _as_integer(self, name: str, value: object) -> int:
        if self._form and isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            return int(value.strip().partition(".")[0])
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise _wrong_type(name, value, "an integer")

    def _value(self, name: str) -> object:
        value = self._values.get(name)
        return None if self._form and isinstance(value, str) and not value.strip() else value


def _wrong_type(name: str, value: object, expected: str) -> InvalidType:
    if isinstance(value, Upload):
        return InvalidType(name, value.filename, f"{expected}, not a file")
    return InvalidType(name, value, expected)
