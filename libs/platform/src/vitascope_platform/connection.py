"""The platform of a cluster: NATS for messages and records, S3 for objects."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from vitascope_core.errors import Outage
from vitascope_core.ports import Clock, KeyValue
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.cards import Cards
from vitascope_platform.clock import SystemClock
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.faults import Faults
from vitascope_platform.health import Check
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.nats_connection import nats_connected
from vitascope_platform.patience import Patience, PatientStore
from vitascope_platform.platform import Platform
from vitascope_platform.store_s3 import BucketMissing, S3Store

log = logging.getLogger(__name__)

BUCKET_S = 5.0
"""How long a store's bucket may be missing although the broker's are there: the bootstrap makes it right after them."""

LONGEST_PAUSE_S = 5.0
"""Upper bound of the pauses between two looks for what is not there yet."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Connection:
    """A platform with what only services need.

    Attributes:
        workers: Who is there.
        hindrance: Says why the platform cannot be worked with now, or None.
    """

    platform: Platform
    workers: KeyValue
    hindrance: Check


@asynccontextmanager
async def connected(
    name: str,
    settings: ServiceSettings,
    *,
    outage_s: float | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Connection]:
    """Connect to broker and stores and stay connected while the block runs.

    What is away, or was not made by the bootstrap yet, is waited for; while the block runs, connections come back by
    themselves.

    Args:
        name: Of the service, for the broker's list of connections.
        settings: Where broker and stores are.
        outage_s: How long a call of a store rides out an outage, seconds; None for as long as a worker does.
        tell: Hears what is waited for.

    Raises:
        InvalidSettings: Broker or store refuse what the settings say, which no waiting changes.
    """
    clock = SystemClock()
    patience = Patience(clock, settings.worker.outage_s if outage_s is None else outage_s)
    frames, results = S3Store(settings.s3.frames), S3Store(settings.s3.results)
    tell("waiting for the broker")
    async with nats_connected(settings.nats, name) as nats:
        try:
            tell("waiting for the bootstrap")
            buckets = {kind: NatsKeyValue(nats, kind) for kind in ("jobs", "cards", "workers")}
            for kind, bucket in buckets.items():
                await until_there(f"bucket {kind}", partial(bucket.get, "none"), clock)
            for what, store in (("the frames store", frames), ("the results store", results)):
                tell(f"waiting for {what}")
                await _until_usable(what, store, clock)
            platform = Platform(
                bus=NatsBus(nats, ack_wait_s=settings.worker.ack_wait_s),
                jobs=JobStore(buckets["jobs"]),
                cards=Cards(buckets["cards"]),
                frames=PatientStore(frames, patience),
                results=PatientStore(results, patience),
                clock=clock,
                result_prefix=settings.s3.result_prefix,
                patience=patience,
                faults=Faults(settings.fault),
            )
            yield Connection(
                platform, buckets["workers"], lambda: None if nats.connected else "the broker is not connected"
            )
        finally:
            frames.close()
            results.close()


async def until_there(what: str, call: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Return what ``call`` returns, once it does; why it does not yet is logged whenever that changes."""
    told, pause = "", 0.2
    while True:
        try:
            return await call()
        except Outage as error:
            if str(error) != told:
                told = str(error)
                log.warning("waiting", extra={"for": what, "error": told})
            await clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)


async def _until_usable(what: str, store: S3Store, clock: Clock) -> None:
    """Return once the store takes and gives objects.

    Raises:
        InvalidSettings: It refuses us, or the bucket stays missing.
    """
    until = clock.monotonic() + BUCKET_S
    while True:
        try:
            return await until_there(what, store.check, clock)
        except BucketMissing as error:
            if clock.monotonic() > until:
                raise
            log.warning("waiting", extra={"for": what, "error": str(error)})
            await clock.sleep(1.0)
