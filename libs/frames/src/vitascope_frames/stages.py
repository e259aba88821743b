"""The stage protocols: compute that knows nothing of transport.

A stage is written once and tested with plain arrays; the command line runs it in memory's reach, a worker feeds it from
the object store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from vitascope_core.job import FileRecord, JobSpec
from vitascope_core.plan import Options
from vitascope_core.ports import Control
from vitascope_frames.checkpoints import Checkpoints, Kept
from vitascope_frames.chunk import Chunk, Frames, Segment


class Source(Protocol):
    """Makes frames from a spec: the denoiser, the reader of stored media, the testcard.

    Two jobs may be under way at once, each in a thread of its own, so that one decodes while the next denoises.
    """

    def chunks(self, spec: JobSpec, control: Control, checkpoints: Checkpoints) -> Iterator[Chunk | Kept]:
        """Yield the chunks of every output, cut as ``spec.cuts`` says; those of one output are in order.

        A source that can go on where an earlier attempt ended uses ``checkpoints``; what it yields is the same either
        way. `Kept` stands for all chunks of an output that an earlier attempt stored.

        Raises:
            Stopped: From ``control.tick``, within one denoising step or one chunk of being told.
            EngineCrashed: The process that holds the model died.
            Final: The spec cannot be computed.
        """


class Transform(Protocol):
    """Maps a chunk to a chunk: the interpolator, the upscaler."""

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        """Return the chunk transformed; output, index and last are kept."""


@runtime_checkable
class StreamingTransform(Transform, Protocol):
    """A transform whose frames are too large to be held together: the upscaler.

    It keeps the number of frames, their numbers and their rate.
    """

    def stream(self, chunk: Chunk, options: Options) -> Iterator[Frames]:
        """Yield the frames of what ``apply`` returns in order, uint8 (n, H, W, C), n >= 1, and hold few of them.

        All steps, and the closing, happen one after the other, not always in one thread. Errors are raised by the first
        step at the earliest.
        """


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished file on local disk, ready to be stored.

    Attributes:
        name: File name in the job's results, for example ``0.mp4``.
        path: Where it lies now.
        record: What becomes known of it; its ``key`` and ``size`` are filled in when it is stored.
    """

    name: str
    path: Path
    record: FileRecord


class Sink(Protocol):
    """Writes finished files: the uploader."""

    def write(
        self,
        spec: JobSpec,
        parts: Iterator[Chunk | Segment],
        folder: Path,
        control: Control,
        sound: Path | None = None,
    ) -> list[Artifact]:
        """Write every output's files into ``folder``.

        Args:
            spec: What the files are to be.
            parts: Chunks or segments, each output's in order; taken as they come, so memory holds one at a time.
            folder: An empty folder on local disk.
            control: Ticked once for every part.
            sound: To be heard beside the first output, as `vitascope_frames.sound.take_sound` wrote it; None for none.

        Raises:
            Stopped: From ``control.tick``.
            InputLost: The parts leave a hole or stop early.
        """
