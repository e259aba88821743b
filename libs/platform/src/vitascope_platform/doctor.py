"""``python -m vitascope_platform.doctor``: look at broker and stores as a service would, and say what is wrong.

It reads the environment that the services read, so that a pod can run it. Nothing it writes stays.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence

from vitascope_core.errors import InvalidSettings
from vitascope_platform.bootstrap_nats import Layout
from vitascope_platform.broker_examination import examine_broker
from vitascope_platform.clock import SystemClock
from vitascope_platform.environment import ServiceSettings, read_settings
from vitascope_platform.findings import Finding, as_json, as_lines, has_problem, problem
from vitascope_platform.logs import log_to_stderr
from vitascope_platform.store_examination import examine_stores


async def examine(settings: ServiceSettings, pools: Sequence[str] = ()) -> AsyncIterator[Finding]:
    """Look at everything and yield what is found.

    Args:
        settings: Those of any service.
        pools: Pools that must be there, beside those that are found.
    """
    clock = SystemClock()
    async for finding in examine_broker(settings.nats, clock, ack_wait_s=settings.worker.ack_wait_s, pools=pools):
        yield finding
    async for finding in examine_stores(settings.s3, clock):
        yield finding


def diagnose(pools: Sequence[str] = (), *, json: bool = False) -> tuple[str, int]:
    """Examine what the environment describes; return the report and the exit code: 1 if there is a problem, else 0."""

    async def all_findings(settings: ServiceSettings) -> list[Finding]:
        return [finding async for finding in examine(settings, pools)]

    try:
        Layout(tuple(pools))  # checks their names
        findings = asyncio.run(all_findings(read_settings(ServiceSettings)))
    except InvalidSettings as error:
        findings = [problem("settings", str(error), "Correct it; docs/cluster.md lists all variables.")]
    return as_json(findings) if json else as_lines(findings), int(has_problem(findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vitascope_platform.doctor",
        description="Look at broker and stores as a service would. Reads VITASCOPE_NATS_*, VITASCOPE_S3_* and "
        "VITASCOPE_WORKER_ACK_WAIT_S.",
    )
    parser.add_argument("--pool", action="append", default=[], help="a pool that must be there; repeatable")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args(arguments)
    log_to_stderr("error")
    report, code = diagnose(options.pool, json=options.json)
    sys.stdout.write(report)
    return code


if __name__ == "__main__":
    sys.exit(main())
