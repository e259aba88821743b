"""How the command ends."""

from __future__ import annotations

import logging
import sys

from vitascope_core.errors import VitascopeError

log = logging.getLogger(__name__)

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; 130 is what shells report for Ctrl-C."""


class UsageError(VitascopeError):
    """The command line, the configuration file or a setting is wrong."""

    code = "usage"


class CommandFailed(VitascopeError):
    """The command was understood but could not be carried out."""

    code = "failed"


def say(error: Exception) -> None:
    """Print an error as one line."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)  # over what a progress bar left there
    print(f"vitascope: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    log.debug("where it came from", exc_info=error)
