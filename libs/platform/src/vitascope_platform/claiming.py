"""Claims of source stages: whose turn an attempt is, and where it may go on. The rules are those of `attempts`."""

from __future__ import annotations

from dataclasses import dataclass

from vitascope_core.errors import WorkerCrashed
from vitascope_core.handling import Resume
from vitascope_core.job import ChunkRecord, JobSpec, SourceRecord, SourceState, new_token
from vitascope_core.task import Task
from vitascope_platform.attempts import kept_chunks, next_attempt
from vitascope_platform.patience import Patience
from vitascope_platform.platform import Platform
from vitascope_platform.runs import Runs
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.source_claim import SourceClaim

TAKEOVER_BEATS = 3
"""Heartbeats that a running source is given to show that it lives, before another worker claims it."""


class Superseded(Exception):
    """The task's work is done, or belongs to someone else."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Makes the claims of one worker."""

    platform: Platform
    patience: Patience
    settings: WorkerSettings
    runs: Runs

    async def next(self, task: Task, spec: JobSpec) -> tuple[SourceClaim, Resume | None] | None:
        """Claim the next attempt, and find where it may go on; None when another worker was faster.

        Raises:
            Superseded: The source stage is done.
            WorkerCrashed: It has crashed too often.
        """
        jobs, clock = self.platform.jobs, self.platform.clock
        found = await self.patience(lambda: jobs.source(spec.id))
        before = found.record if found else None
        if before is not None and before.state is SourceState.DECODED:
            raise Superseded
        if before is not None and before.state is SourceState.RUNNING:
            # If its owner lives, the record moves on meanwhile, and the compare-and-set below refuses us.
            await clock.sleep(TAKEOVER_BEATS * self.settings.check_s)
        now_ms = clock.now_ns() // 1_000_000
        chunks = await self._source_chunks(task, before) if before is not None else []
        record = next_attempt(before, len(chunks), new_token(), now_ms)
        self._check_crashes(record)
        claim = await self.runs.take(spec, record, found.revision if found else None)
        if claim is None:
            return None
        if before is None:
            return claim, None
        # What else the dead attempt stored is nobody's input any more.
        await self.runs.clear_attempt(spec.id, before.attempt)
        checkpoint = before.checkpoint
        return claim, None if checkpoint is None else Resume(checkpoint, kept_chunks(before, chunks))

    async def crashes_after(self, task: Task, before: SourceRecord) -> int:
        """Return how many crashes in a row there are once the attempt ``before`` has failed.

        Raises:
            WorkerCrashed: That is too many.
        """
        chunks = await self._source_chunks(task, before)
        following = next_attempt(before, len(chunks), new_token(), self.platform.clock.now_ns() // 1_000_000)
        self._check_crashes(following)
        return following.crashes

    def _check_crashes(self, record: SourceRecord) -> None:
        if record.crashes >= self.settings.max_crashes:
            why = f": {record.error}" if record.error else ""
            raise WorkerCrashed(f"the source stage crashed {record.crashes} times in a row{why}")

    async def _source_chunks(self, task: Task, before: SourceRecord) -> list[ChunkRecord]:
        return await self.patience(lambda: self.platform.jobs.chunks(task.job_id, before.attempt, task.stage))
