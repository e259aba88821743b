"""What the gateway remembers of every job, kept up to date by the changes of the jobs bucket."""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

from vitascope_core.geometry import chunk_length
from vitascope_core.job import ChunkRecord, EndState, JobEnd, JobKind, JobSpec, SourceRecord, SourceState
from vitascope_core.plan import StageName
from vitascope_platform.jobs import JobChange

SOURCE_SHARE = 80
CHUNK_SHARE = 19
"""Points of progress for the denoising steps and for the chunks of the last stage; the last one comes with the end."""

READ_SHARE = 10
PROCESSED_SHARE = 89
"""The same for jobs that read a file: its chunks as they are read, and those of the last stage."""

_JOB_ID = re.compile(r"(?:video|img)_([0-9a-f]{12})[0-9a-f]{20}")


class Status(StrEnum):
    """The four states of a job that clients know."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it was at one moment.

    Attributes:
        source: The record of the source stage; None before the first claim and after the end.
        chunks: Recorded chunks of the plan's last stage in the current attempt.
        progress: 0 to 100; never less than any view of the job before, and 100 exactly when it is completed.
    """

    spec: JobSpec
    source: SourceRecord | None = None
    chunks: int = 0
    end: JobEnd | None = None
    progress: int = 0

    @property
    def status(self) -> Status:
        """The state that clients are told; a cancelled job is a failed one."""
        if self.end is not None:
            return Status.COMPLETED if self.end.state is EndState.COMPLETED else Status.FAILED
        return Status.QUEUED if self.source is None else Status.IN_PROGRESS


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and whether there is more behind it."""

    jobs: tuple[JobView, ...]
    has_more: bool


def created_ms_of(job_id: str) -> int | None:
    """Return the creation time in milliseconds that is part of a job id, or None if it is not one."""
    match = _JOB_ID.fullmatch(job_id)
    return None if match is None else int(match[1], 16)


@dataclass(slots=True, eq=False)
class _Job:
    """The records of one job that were seen so far, in whatever order they came."""

    spec: JobSpec | None = None
    source: SourceRecord | None = None
    end: JobEnd | None = None
    chunks: dict[tuple[int, StageName], set[tuple[int, int]]] = field(default_factory=dict)
    best: dict[StageName, int] = field(default_factory=dict)
    mark: int = 0

    def take(self, record: JobSpec | SourceRecord | ChunkRecord | JobEnd) -> None:
        """Take a record in; one that is older than what is known changes nothing."""
        if isinstance(record, JobSpec):
            self.spec = record
        elif isinstance(record, JobEnd):
            self.end = record
            # A finished job is remembered for days: what is left of it must not grow with its length.
            self.source, self.chunks, self.best = None, {}, {}
        elif self.end is None:
            self._take_progress(record)
        self.mark = max(self.mark, self._progress())

    def _take_progress(self, record: SourceRecord | ChunkRecord) -> None:
        attempt = self.source.attempt if self.source else 0
        if isinstance(record, ChunkRecord):
            if record.attempt >= attempt:
                self.chunks.setdefault((record.attempt, record.stage), set()).add((record.output, record.index))
        elif self.source is None or (record.attempt, record.beat) >= (attempt, self.source.beat):
            self.source = record
            for key in [key for key in self.chunks if key[0] < record.attempt]:
                # How far an earlier attempt got is how far the job was seen to be: by the gateways that saw it.
                self.best[key[1]] = max(self.best.get(key[1], 0), len(self.chunks.pop(key)))

    def _progress(self) -> int:
        if self.spec is None:
            return 0
        if self.end is not None:
            return 100 if self.end.state is EndState.COMPLETED else self.mark
        if self.source is None:
            return 0
        if self.spec.ingest is not None:
            return self._progress_of_file(self.spec, self.source)
        reached = max(self.source.step, self.source.reached_step)
        done = reached / self.source.steps if self.source.steps else 0.0
        if self.source.state is SourceState.DECODED:
            done = 1.0
        expected = len(self.spec.cuts) * self.spec.outputs
        made = max(self._count(self.spec), self.best.get(self.spec.plan.last, 0))
        points = SOURCE_SHARE * min(1.0, done) + CHUNK_SHARE * min(1.0, made / expected)
        return min(99, int(points))

    def _progress_of_file(self, spec: JobSpec, source: SourceRecord) -> int:
        """Return the progress of a job that reads a file: how many chunks it has is known once all were read."""
        expected = sum(source.chunks) if source.state is SourceState.DECODED else _chunks_guessed(spec, source)
        if not expected:
            return 0
        read = max(len(self.chunks.get((source.attempt, StageName.INGEST), ())), self.best.get(StageName.INGEST, 0))
        made = max(self._count(spec), self.best.get(spec.plan.last, 0))
        points = READ_SHARE * min(1.0, read / expected) + PROCESSED_SHARE * min(1.0, made / expected)
        return min(99, int(points))

    def _count(self, spec: JobSpec) -> int:
        attempt = self.source.attempt if self.source else 0
        return len(self.chunks.get((attempt, spec.plan.last), ()))

    def view(self) -> JobView | None:
        """Return the job as it is now, or None while its spec is unknown."""
        if self.spec is None:
            return None
        return JobView(self.spec, self.source, self._count(self.spec), self.end, self.mark)


def _chunks_guessed(spec: JobSpec, source: SourceRecord) -> int:
    """Return how many chunks a file makes, as far as its headers say; 0 if they do not."""
    media = source.media
    if spec.ingest is None or media is None or not media.frames:
        return 0
    length = spec.ingest.chunk_frames or chunk_length(media.width, media.height, media.fps, spec.plan)
    return math.ceil(media.frames / length)


class Ledger:
    """The jobs that have a spec: a job whose spec was purged is unknown, whatever else is left of it.

    Fed with a snapshot (`begin`, changes in any order, `finish`) and then with changes as they happen. A second
    snapshot drops what vanished in between and keeps how far every job was seen to be.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._videos: list[tuple[int, str]] = []
        self._snapshot: set[str] | None = None

    def begin(self) -> None:
        """Expect a snapshot of all records."""
        self._snapshot = set()

    def finish(self) -> None:
        """Drop every job whose spec was not in the snapshot."""
        seen, self._snapshot = self._snapshot or set(), None
        for job_id in [job_id for job_id in self._jobs if job_id not in seen]:
            self.forget(job_id)

    def apply(self, change: JobChange) -> None:
        """Take in a change of one record."""
        record = change.record
        if record is None:
            # Of a purged job only the end stays, and of an ended one progress is not needed any more.
            if change.part == "spec":
                self.forget(change.job_id)
            return
        if isinstance(record, JobSpec):
            self._list(record)
            if self._snapshot is not None:
                self._snapshot.add(change.job_id)
        elif change.job_id not in self._jobs and self._snapshot is None:
            return  # a late record of a purged job; the spec is always the first of a new one
        self._jobs.setdefault(change.job_id, _Job()).take(record)

    def get(self, job_id: str) -> JobView | None:
        """Return the job, or None if it is unknown."""
        job = self._jobs.get(job_id)
        return None if job is None else job.view()

    def forget(self, job_id: str) -> None:
        """Drop a job that was deleted."""
        job = self._jobs.pop(job_id, None)
        if job is not None and job.spec is not None and job.spec.kind is JobKind.VIDEO:
            del self._videos[bisect.bisect_left(self._videos, (job.spec.created_ms, job_id))]

    def videos(self, owner: str, after: str | None, limit: int, *, newest_first: bool) -> Page:
        """Return up to ``limit`` videos of ``owner`` behind the video ``after``, by creation time and id.

        ``after`` may have been deleted meanwhile: its id says where it was.

        Raises:
            ValueError: ``after`` is not an id.
        """
        keys = self._behind(after, newest_first=newest_first)
        found = (self._jobs[job_id].view() for _, job_id in keys)
        jobs: list[JobView] = []
        for view in found:
            if view is None or view.spec.owner != owner:
                continue
            if len(jobs) == limit:
                return Page(tuple(jobs), has_more=True)
            jobs.append(view)
        return Page(tuple(jobs), has_more=False)

    def _behind(self, after: str | None, *, newest_first: bool) -> list[tuple[int, str]]:
        if after is None:
            return self._videos[::-1] if newest_first else self._videos[:]
        view = self.get(after)
        created_ms = created_ms_of(after) if view is None else view.spec.created_ms
        if created_ms is None:
            raise ValueError(after)
        place = (created_ms, after)
        if newest_first:
            return self._videos[: bisect.bisect_left(self._videos, place)][::-1]
        return self._videos[bisect.bisect_right(self._videos, place) :]

    def _list(self, spec: JobSpec) -> None:
        job = self._jobs.get(spec.id)
        if spec.kind is JobKind.VIDEO and (job is None or job.spec is None):
            bisect.insort(self._videos, (spec.created_ms, spec.id))
