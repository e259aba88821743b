"""The entry point: one line for an error, and an exit code that says whose it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from vitascope_cli.doctor import doctor
from vitascope_cli.enhance import enhance
from vitascope_cli.errors import FAILED, INTERRUPTED, USAGE, UsageError, say
from vitascope_cli.generate import generate
from vitascope_cli.node import NodeSettings
from vitascope_cli.options import parse
from vitascope_cli.serve import serve
from vitascope_core.errors import InvalidRequest, InvalidSettings, VitascopeError
from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.logs import log_to_stderr
from vitascope_platform.settings import WorkerSettings
from vitascope_uploader.service_settings import IngestSettings


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        options = parse(arguments)
        log_to_stderr(options.log_level)
        if options.command == "doctor":
            # It looks at a cluster: what a single process is set to does not matter.
            return doctor(options)
        settings = _settings()
        command = {"generate": generate, "enhance": enhance, "serve": serve}[options.command]
        return asyncio.run(command(options, settings))
    except KeyboardInterrupt:
        return INTERRUPTED
    except (UsageError, InvalidSettings, InvalidRequest) as error:
        say(error)
        return USAGE
    except VitascopeError as error:
        say(error)
        return FAILED


def _settings() -> NodeSettings:
    try:
        return NodeSettings(WorkerSettings(), GatewaySettings(), IngestSettings())
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(f"{error.title} {name}: {first['msg']}") from error
