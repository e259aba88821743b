"""A parser of flags whose errors name the nearest flag, and the configuration file that stands for some of them."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from vitascope_cli.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of exiting, and never guesses an abbreviated flag."""

    def __init__(self, **kwargs: Any) -> None:
        fixed = {"allow_abbrev": False, "formatter_class": argparse.ArgumentDefaultsHelpFormatter}
        super().__init__(**{**kwargs, **fixed})

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(message)

    @property
    def flags(self) -> dict[str, argparse.Action]:
        """Every long flag with its action."""
        return {name: action for name, action in self._option_string_actions.items() if name.startswith("--")}


def configured(words: Sequence[str], command: Parser) -> list[str]:
    """Return the flags that the configuration file of a command line stands for.

    Raises:
        UsageError: It cannot be read, or says what the command does not know.
    """
    finder = Parser(add_help=False)
    finder.add_argument("--config", type=Path)
    path: Path | None = finder.parse_known_args(list(words))[0].config
    if path is None:
        return []
    flags: list[str] = []
    for key, value in _read_config(path).items():
        flag = dashed(f"--{key}")
        action = command.flags.get(flag)
        if action is None or flag in ("--config", "--help"):
            raise UsageError(f"{path}: {unknown('key', str(key), {f[2:].replace('-', '_'): 0 for f in command.flags})}")
        if value is None:
            continue
        if isinstance(action, argparse.BooleanOptionalAction):
            if not isinstance(value, bool):
                raise UsageError(f"{path}: {key} must be true or false, got {value!r}")
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            flags.append(f"{flag}={value}")
        else:
            raise UsageError(f"{path}: {key} must be a single value, got {value!r}")
    return flags


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the configuration file {path}: {error}") from error
    try:
        if path.suffix == ".json":
            content = json.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            content = yaml.safe_load(text)
        else:
            raise UsageError(f"the configuration file must end in .json, .yaml or .yml, got {path.name}")
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not valid: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold one object with flags as keys")
    return content


def dashed(word: str) -> str:
    """Return a word of the command line, in the name of a flag with dashes for underscores."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def unknown(what: str, name: str, known: dict[str, Any]) -> str:
    """Return what to say of a name that is not among the known ones."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {what} {name}" + (f"; did you mean {near[0]}?" if near else "; see --help")
