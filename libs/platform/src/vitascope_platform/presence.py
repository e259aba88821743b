"""Who is there: every process shows itself in the workers bucket, which forgets those that fall silent."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass

from vitascope_core.errors import Outage
from vitascope_core.ports import Clock, KeyValue

log = logging.getLogger(__name__)

EVERY_S = 10.0
"""Pause between two signs of life; the bucket keeps one for 30 s, so two may be lost."""

_LEAVE_S = 2.0
"""How long a process that ends tries to say so."""


@dataclass(frozen=True, slots=True)
class Present:
    """What a process shows.

    Attributes:
        service: "gateway", "denoiser", …
        instance: Its name among all instances of the service.
        version: Version of the program.
        stage: Stage of its queue; "" where it has none.
        pool: Pool of its queue; "" where it has none.
        busy: Tasks being worked on.
    """

    service: str
    instance: str
    version: str
    stage: str = ""
    pool: str = ""
    busy: int = 0
    schema_version: int = 1

    @property
    def key(self) -> str:
        """Its place in the bucket."""
        return f"{self.service}.{self.instance}"


async def show(bucket: KeyValue, clock: Clock, who: Callable[[], Present]) -> None:
    """Show ``who()`` every `EVERY_S` seconds until cancelled, then take it away; an outage is waited for."""
    try:
        while True:
            present = who()
            try:
                await bucket.put(present.key, json.dumps(asdict(present)).encode())
            except Outage as error:
                log.debug("presence not shown", extra={"error": str(error)})
            await clock.sleep(EVERY_S)
    finally:
        try:
            async with asyncio.timeout(_LEAVE_S):
                await bucket.delete(who().key)
        except (Outage, TimeoutError):
            pass  # The bucket forgets it.


def instance_name() -> str:
    """Return a name of this process that no other has: in Kubernetes the pod's, with the process id."""
    host = re.sub(r"[^A-Za-z0-9_-]+", "-", socket.gethostname()).strip("-") or "host"
    return f"{host}-{os.getpid()}"
