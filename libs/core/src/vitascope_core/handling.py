"""What a worker and a stage's handler say to each other.

The worker owns deliveries, claims, records and successors and never sees an array; a handler owns frames and objects
and never sees a message. They meet here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from vitascope_core.job import CheckpointRecord, ChunkRecord, FileRecord, JobEnd, JobSpec, Media
from vitascope_core.ports import Control
from vitascope_core.task import Task


class SourceLog(Protocol):
    """An attempt's record, as far as its handler writes it. Every change is a compare-and-set."""

    async def point(self, checkpoint: CheckpointRecord) -> bool:
        """Let the next attempt go on from ``checkpoint``; return whether this attempt is still the newest.

        Raises:
            BrokerUnavailable: Unknown whether it was written.
        """

    async def resumed(self, checkpoint: CheckpointRecord) -> bool:
        """Write that this attempt goes on from ``checkpoint``; return whether it is still the newest.

        Raises:
            BrokerUnavailable: Unknown whether it was written.
        """

    async def opened(self, media: Media) -> bool:
        """Write what was found in the file that is read; return whether this attempt is still the newest.

        Raises:
            BrokerUnavailable: Unknown whether it was written.
        """

    async def shown(self, previews: int) -> bool:
        """Write how many previews are stored; return whether this attempt is still the newest.

        Raises:
            BrokerUnavailable: Unknown whether it was written.
        """


@dataclass(frozen=True, slots=True)
class Resume:
    """What earlier attempts left to a source.

    Attributes:
        checkpoint: The newest one.
        kept: Chunks of the attempt before, of those outputs that it stored in full; none unless the checkpoint is of
            the last step, so that they come from the same latents.
    """

    checkpoint: CheckpointRecord
    kept: tuple[ChunkRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """One delivery, ready to be worked on.

    Attributes:
        attempt: The source attempt that objects are written under.
        token: Fresh for each delivery; names what only this delivery may write.
        control: Progress goes in, cancellation comes out.
        log: The attempt's record; None for what is no source.
        resume: Where a source may go on; None when there is nothing.
        media: What the source found in the file that the frames are read from; None where there is none, and for the
            source itself.
    """

    task: Task
    spec: JobSpec
    attempt: int
    token: str
    control: Control
    log: SourceLog | None = None
    resume: Resume | None = None
    media: Media | None = None


class ChunkHandler(Protocol):
    """The handler of a source or a transform."""

    def chunks(self, work: Work) -> AsyncIterator[ChunkRecord]:
        """Store each chunk as it is made and yield its record; the worker records and announces it.

        Raises:
            Stopped: The control said so.
            Outage, Retryable, Final: See `vitascope_core.errors`.
        """


class UploadHandler(Protocol):
    """The handler of the sink."""

    async def upload(self, work: Work, parts: AsyncIterator[ChunkRecord]) -> list[FileRecord]:
        """Write the finished files under the delivery's token and return their records.

        Args:
            work: The delivery.
            parts: Every chunk of the plan's last stage, by output and index, each as soon as it is recorded.

        Raises:
            Stopped: The control said so.
            Outage, Retryable, Final: See `vitascope_core.errors`.
        """

    async def finish(self, work: Work, end: JobEnd) -> None:
        """Store the manifest: ``end`` as it is about to be created, beside the files that `upload` stored.

        Raises:
            Stopped: The control said so.
            Outage: See `vitascope_core.errors`.
        """

    async def discard(self, job_id: str, token: str) -> None:
        """Remove what a delivery wrote that lost the race for the job's end."""
