"""The reaper: what no worker is left to do.

Every gateway runs one. Each of its acts is a create, a delete or a compare-and-set, so that several do no harm and none
leads.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from vitascope_core import keys
from vitascope_core.errors import Conflict, DeadlineExceeded, Outage
from vitascope_core.job import EndState, JobEnd, JobSpec, SourceState, new_token
from vitascope_core.task import source_task
from vitascope_platform.clock import sleep_or
from vitascope_platform.jobs import JobChange
from vitascope_platform.platform import Platform
from vitascope_platform.removal import delete_job, discard_losers
from vitascope_platform.telemetry import headers_of

log = logging.getLogger(__name__)

MAX_LOOKED_AFTER = 100
"""Ended jobs whose files one sweep lists: a gateway that starts finds those of many days."""


@dataclass(slots=True)
class _Job:
    spec: JobSpec | None = None
    end: JobEnd | None = None
    progress: bool = False
    """Whether it has records of its source or of chunks."""


@dataclass(slots=True)
class Sweep:
    """What one sweep did: job ids."""

    revived: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    tidied: list[str] = field(default_factory=list)


class Reaper:
    """Looks over all jobs now and then.

    Args:
        platform: What to look over.
        grace_s: How long a job may be without a message, or objects without a job, before something is done.
        tombstone_s: How long the end of a deleted job is kept: longer than any deadline, so that no late worker can
            revive the job.
        every_s: Pause between sweeps, to which up to a half is added by chance so that replicas do not sweep at once.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        grace_s: float = 60.0,
        tombstone_s: float = 26 * 3600.0,
        every_s: float = 30.0,
    ) -> None:
        self._platform = platform
        self._grace_s = grace_s
        self._tombstone_s = tombstone_s
        self._every_s = every_s
        self._suspects: dict[str, float] = {}
        self._tidy: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sweep until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self.sweep()
            except Outage as error:
                log.warning("sweep given up", extra={"error": str(error)})
            await sleep_or(stop, self._platform.clock, self._every_s * random.uniform(1.0, 1.5))

    async def sweep(self) -> Sweep:
        """Look over all jobs once.

        Raises:
            Outage: Something was away; the next sweep does the rest.
        """
        jobs = _by_job(await self._platform.jobs.all())
        done, suspects = Sweep(), set[str]()
        now_ms = self._platform.clock.now_ns() // 1_000_000
        # One look for all: with thousands of jobs queued, asking for each would be thousands of requests.
        with_message = await self._platform.bus.jobs()
        for job_id, job in jobs.items():
            if job.end is not None:
                await self._ended(job_id, job.spec, job.end, now_ms, done)
                if job.progress and self._is_past(job.end, now_ms):
                    await self._platform.jobs.purge_progress(job_id)
            elif job.spec is not None and now_ms > job.spec.deadline_ms:
                await self._expire(job_id, done)
            elif job.spec is not None and job_id not in with_message:
                suspects.add(job_id)
                if self._ripe(job_id):
                    await self._revive(job.spec, done)
        await self._clear_objects(jobs, suspects, done)
        await self._tidy_results(jobs, now_ms, done)
        self._suspects = {job_id: since for job_id, since in self._suspects.items() if job_id in suspects}
        return done

    def _ripe(self, name: str) -> bool:
        now = self._platform.clock.monotonic()
        return now - self._suspects.setdefault(name, now) >= self._grace_s

    async def _ended(self, job_id: str, spec: JobSpec | None, end: JobEnd, now_ms: int, done: Sweep) -> None:
        age_ms = now_ms - end.at_ms
        if spec is not None and age_ms > spec.result_ttl_s * 1000:
            await delete_job(self._platform, job_id)
            done.removed.append(job_id)
        elif spec is None and age_ms > self._tombstone_s * 1000:
            await self._platform.jobs.purge_end(job_id)

    def _is_past(self, end: JobEnd, now_ms: int) -> bool:
        """Whether whoever ended the job has had the time to tidy up."""
        return now_ms - end.at_ms > self._grace_s * 1000

    async def _tidy_results(self, jobs: dict[str, _Job], now_ms: int, done: Sweep) -> None:
        """Remove the files of uploads that were killed after they had stored them and before they saw the job's end.

        No task and no record is left of such an upload. So each ended job is looked at once, the latest ones first.
        """
        self._tidy &= jobs.keys()
        ends = {job_id: job.end for job_id, job in jobs.items() if job.end is not None and job_id not in self._tidy}
        due = sorted((end.at_ms, job_id) for job_id, end in ends.items() if self._is_past(end, now_ms))
        for _, job_id in due[: -MAX_LOOKED_AFTER - 1 : -1]:
            if await discard_losers(self._platform, job_id, ends[job_id]):
                log.warning("files of a lost upload removed", extra={"job_id": job_id})
                done.tidied.append(job_id)
            self._tidy.add(job_id)

    async def _expire(self, job_id: str, done: Sweep) -> None:
        error = DeadlineExceeded("The job was not finished before its deadline.")
        at_ms = self._platform.clock.now_ns() // 1_000_000
        await self._platform.jobs.create_end(
            job_id, JobEnd(EndState.FAILED, new_token(), at_ms, error.code, str(error))
        )
        await self._platform.bus.purge(job_id)
        done.expired.append(job_id)

    async def _revive(self, spec: JobSpec, done: Sweep) -> None:
        jobs, bus = self._platform.jobs, self._platform.bus
        # Read again: the job may have ended, or been deleted, since the sweep began.
        if await jobs.end(spec.id) is not None or await jobs.spec(spec.id) is None or await bus.count(spec.id):
            return
        found = await jobs.source(spec.id)
        if found is not None and found.record.state in (SourceState.DECODED, SourceState.RUNNING):
            # Nobody works on it, or there would be a message; what follows the source is lost, so it starts anew.
            lost = replace(found.record, state=SourceState.FAILED, error="lost: no message of the job was left")
            try:
                await jobs.swap_source(spec.id, lost, found.revision)
            except Conflict:
                return
        task = source_task(spec)
        name = f"{task.message_id}/{new_token()}"
        await bus.publish(task, message_id=name, headers=headers_of(spec.traceparent))
        log.warning("job revived", extra=task.log_fields)
        done.revived.append(spec.id)

    async def _clear_objects(self, jobs: dict[str, _Job], suspects: set[str], done: Sweep) -> None:
        for job_id in sorted({info.key.split("/")[1] for info in await self._platform.frames.list("jobs/")}):
            job = jobs.get(job_id)
            if job is not None and job.end is None and job.spec is not None:
                continue
            # An unknown job may be one whose inputs are being stored; an ended one may still be stopping.
            suspects.add(job_id)
            if self._ripe(job_id):
                await self._platform.frames.delete_prefix(keys.job_prefix(job_id))
                done.cleared.append(job_id)


def _by_job(changes: Iterable[JobChange]) -> dict[str, _Job]:
    jobs: dict[str, _Job] = {}
    for change in changes:
        job = jobs.setdefault(change.job_id, _Job())
        if isinstance(change.record, JobSpec):
            job.spec = change.record
        elif isinstance(change.record, JobEnd):
            job.end = change.record
        elif change.record is not None:
            job.progress = True
    return jobs
