"""One run: references, the storm, the calm after it, the look around."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tools.cluster.cluster import Cluster
from tools.nemesis.aftermath import Aftermath, Files, aftermath_of, leftovers
from tools.nemesis.crew import Crew
from tools.nemesis.faults import Faults
from tools.nemesis.history import History
from tools.nemesis.load import Load
from tools.nemesis.onlooker import Onlooker
from tools.nemesis.records import Records
from tools.nemesis.schedule import Schedule

SETTLE_S = 120.0
"""How long the cluster gets to come to rest after the last fault is mended."""
CALM_S = 1.0
"""How long it must stay at rest."""

_LOOK_S = 0.5
_TELL_S = 5.0


async def storm(
    schedule: Schedule, references: Mapping[tuple[str, int], Files], cluster: Cluster, history: History, folder: Path
) -> Aftermath:
    """Send the requests and inject the faults of a schedule, mend everything, wait for rest, and look around."""
    crew = Crew(cluster, history)
    async with Records.connected(cluster.nats.url, history) as records, asyncio.TaskGroup() as group:
        faults, load = Faults(cluster, crew, records, history, folder), Load(cluster, records, history)
        history.begin()
        works = (records.follow(), Onlooker(cluster, history).run(), crew.tend(), _tell(history, faults, records))
        beside = [group.create_task(work) for work in works]
        asking = group.create_task(load.run(schedule.requests))
        await faults.run(schedule.faults)
        await asyncio.sleep(schedule.seconds - history.now_s)
        faults.disarm()
        await crew.mend()
        history.add("mended")
        await _rest(asking, cluster, records, history)
        asking.cancel()
        after = await aftermath_of(schedule, references, cluster, crew, records, history)
        for task in beside:
            task.cancel()
    return after


async def _rest(asking: asyncio.Task[None], cluster: Cluster, records: Records, history: History) -> None:
    """Return when every request was answered and nothing is left to do, or after `SETTLE_S`."""
    deadline, calm_since = time.monotonic() + SETTLE_S, 0.0
    while time.monotonic() < deadline:
        left = await leftovers(cluster, records)
        if left or not asking.done():
            calm_since = 0.0
        elif not calm_since:
            calm_since = time.monotonic()
        elif time.monotonic() - calm_since > CALM_S:
            history.add("at rest")
            return
        await asyncio.sleep(_LOOK_S)
    history.add("not at rest", **left)


async def _tell(history: History, faults: Faults, records: Records) -> None:
    """Say now and then how it goes."""
    while True:
        await asyncio.sleep(_TELL_S)
        counts, now = history.counts, ", ".join(faults.now.values()) or "nothing"
        jobs = f"accepted {counts['accepted']}, running {len(records.running)}"
        print(f"{history.now_s:5.0f} s  {jobs}; faults {counts['fault']}; now: {now}", file=sys.stderr, flush=True)
