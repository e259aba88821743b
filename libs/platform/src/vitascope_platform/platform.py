"""What a service is wired to."""

from __future__ import annotations

from dataclasses import dataclass, field

from vitascope_core.ports import Bus, Clock, ObjectStore
from vitascope_platform.cards import Cards
from vitascope_platform.faults import Faults
from vitascope_platform.jobs import JobStore
from vitascope_platform.patience import Patience


@dataclass(frozen=True, slots=True)
class Platform:
    """One bus, the buckets, the two object stores and the time.

    Attributes:
        frames: Intermediate objects of running jobs.
        results: Finished files.
        result_prefix: Put before every key in ``results``; "" or ending with a slash.
        patience: How the stores ride out outages, if they do: given up with the rest when the process must end.
        faults: Where a test lets the process die or stand still; nowhere by default.
    """

    bus: Bus
    jobs: JobStore
    cards: Cards
    frames: ObjectStore
    results: ObjectStore
    clock: Clock
    result_prefix: str = ""
    patience: Patience | None = None
    faults: Faults = field(default_factory=Faults)
