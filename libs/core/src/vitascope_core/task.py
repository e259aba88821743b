"""A task: one message for one stage. It carries references, never data."""

from __future__ import annotations

from dataclasses import dataclass

from vitascope_core.job import SCHEMA_VERSION, ChunkRecord, JobSpec
from vitascope_core.plan import StageName

ANY_POOL = "any"


@dataclass(frozen=True, slots=True)
class Queue:
    """Where tasks of one kind wait: a stage, and for denoising the pool."""

    stage: StageName
    pool: str = ANY_POOL

    def __str__(self) -> str:
        return self.stage if self.pool == ANY_POOL else f"{self.stage}-{self.pool}"


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is asked to do.

    Attributes:
        attempt: The source attempt that a chunk or upload task belongs to; 0 for source tasks, which claim their own.
        output: Output of a chunk task; 0 otherwise.
        index: Chunk of a chunk task; 0 otherwise.
    """

    job_id: str
    stage: StageName
    pool: str = ANY_POOL
    attempt: int = 0
    output: int = 0
    index: int = 0
    schema_version: int = SCHEMA_VERSION

    @property
    def queue(self) -> Queue:
        """The queue that the task waits in."""
        return Queue(self.stage, self.pool)

    @property
    def message_id(self) -> str:
        """The name under which the bus refuses a second copy."""
        return f"{self.job_id}/{self.attempt}/{self.stage}/{self.output}/{self.index}"

    @property
    def log_fields(self) -> dict[str, object]:
        """What a log line about this task carries."""
        return {
            "job_id": self.job_id,
            "stage": str(self.stage),
            "attempt": self.attempt,
            "output": self.output,
            "chunk": self.index,
        }


def source_task(spec: JobSpec) -> Task:
    """Return the task that starts the job, or starts it again."""
    pool = spec.pool if spec.plan.source is StageName.DENOISE else ANY_POOL
    return Task(spec.id, spec.plan.source, pool)


def successor(spec: JobSpec, record: ChunkRecord) -> Task | None:
    """Return the task that a recorded chunk makes possible.

    Between stages that is the same chunk for the next stage. Behind the last stage it is the upload, announced once, by
    the job's first chunk: the uploader follows the records of all the others.
    """
    following = spec.plan.after(record.stage)
    if following is not StageName.UPLOAD:
        return Task(spec.id, following, attempt=record.attempt, output=record.output, index=record.index)
    if record.output == 0 and record.index == 0:
        return Task(spec.id, StageName.UPLOAD, attempt=record.attempt)
    return None
