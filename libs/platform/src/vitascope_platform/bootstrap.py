"""``python -m vitascope_platform.bootstrap``: make what an installation needs on its broker and in its store.

Run it before every start and upgrade. It waits for broker and store, changes what differs from the layout of this
version, and does nothing when there is nothing to do. Services wait until it has run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from vitascope_core.errors import InvalidSettings, Outage
from vitascope_platform.bootstrap_nats import Layout, bootstrap_nats
from vitascope_platform.bootstrap_s3 import bootstrap_s3
from vitascope_platform.clock import SystemClock
from vitascope_platform.environment import ServiceSettings, read_settings
from vitascope_platform.logs import log_to_stderr
from vitascope_platform.nats_connection import NatsSettings, nats_connected
from vitascope_platform.patience import Patience
from vitascope_platform.s3_settings import S3Settings

PATIENCE_S = 120.0
"""How long it rides out a broker or store that goes away while it runs; each step is safe to repeat."""


async def bootstrap(nats: NatsSettings, s3: S3Settings, layout: Layout, deadline_s: int) -> list[str]:
    """Make what is missing and change what differs; return a line for each.

    Args:
        nats: Where the broker is.
        s3: Where the store is.
        layout: What is to be on the broker.
        deadline_s: The longest deadline of a job, seconds: the store keeps what belongs to one for longer.

    Raises:
        InvalidSettings: Something is there that cannot be changed, or broker or store refuse us.
        Outage: Broker or store were away too long.
    """
    patience = Patience(SystemClock(), PATIENCE_S)
    async with nats_connected(nats, "bootstrap") as connection:
        done = await patience(lambda: bootstrap_nats(connection, layout))
    return done + await patience(lambda: bootstrap_s3(s3, deadline_s=deadline_s))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 if all is as it should be, else 1."""
    options = _parser().parse_args(arguments)
    log_to_stderr("info")
    try:
        settings = read_settings(ServiceSettings)
        layout = Layout(
            options.pool,
            ack_wait_s=settings.worker.ack_wait_s,
            replicas=options.replicas,
            max_bytes=options.max_bytes,
        )
        done = asyncio.run(bootstrap(settings.nats, settings.s3, layout, options.deadline_s))
    except (InvalidSettings, Outage) as error:
        sys.stderr.write(f"bootstrap: {error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in done) or "nothing to do: everything is as it should be\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vitascope_platform.bootstrap",
        description="Make what an installation needs on its broker and in its store. Safe to repeat. Addresses, "
        "credentials and the ack wait come from the services' environment: VITASCOPE_NATS_*, VITASCOPE_S3_*, "
        "VITASCOPE_WORKER_ACK_WAIT_S.",
    )
    parser.add_argument("--pool", action="append", required=True, help="slug of a denoiser pool; repeatable")
    parser.add_argument("--replicas", type=int, default=1, help="broker servers that keep a copy (default 1)")
    parser.add_argument(
        "--max-bytes", type=int, default=1 << 30, help="bytes of waiting tasks that the broker takes (default 1 GiB)"
    )
    parser.add_argument(
        "--deadline-s", type=int, default=24 * 3600, help="the longest deadline of a job, seconds (default 86400)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
