"""What one attempt of a source leaves to the next: the protocol between a source and its handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vitascope_frames.chunk import Frames


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far denoising got.

    Attributes:
        step: Denoising steps done, from 1; the number of steps when nothing is left but decoding.
        seconds: What these steps took, over all attempts: what a resume saves.
        data: Everything needed to go on. Opaque to all but the source, which also decides whether it can be used.
    """

    step: int
    seconds: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """Yielded by a source in place of an output's chunks: those that an earlier attempt stored are the ones."""

    output: int


class Checkpoints(Protocol):
    """An attempt's view of those before and after it. May be called from any thread."""

    @property
    def kept(self) -> frozenset[int]:
        """Outputs of which an earlier attempt stored every chunk.

        They may be yielded as `Kept` by a source that resumes at the last step, since they come from the same latents.
        """

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint of the attempts before; None if there is none, or it is damaged.

        Blocks while it is fetched.

        Raises:
            StoreUnavailable: The store is away.
        """

    def used(self, checkpoint: Checkpoint) -> None:
        """Say that the attempt goes on from a checkpoint."""

    def refused(self, why: str) -> None:
        """Say that the attempt starts from the beginning although there is a checkpoint."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Store a checkpoint in place of the one before it. Returns at once.

        One is stored at a time; of those that wait meanwhile the newest is, the others are not. A store or broker that
        is away delays nothing: the checkpoint is given up with a log line, and the one before it stays.
        """

    def preview(self, index: int, frames: Frames) -> None:
        """Store what a picture looks like so far, in place of earlier previews of the same index. Returns at once.

        Args:
            index: Number of the preview, from 0.
            frames: uint8 (1, H, W, C), C = 3 or 4.
        """


def preview_steps(steps: int, previews: int) -> tuple[int, ...]:
    """Return after which steps the previews are due, evenly spread; none after the last, where the picture itself is.

    There are fewer than asked for when there are fewer steps.
    """
    due = {round((number + 1) * steps / (previews + 1)) for number in range(previews)}
    return tuple(sorted(step for step in due if 0 < step < steps))


class NoCheckpoints:
    """Nothing before, nothing after: for sources that run outside a worker."""

    kept: frozenset[int] = frozenset()

    def newest(self) -> None:
        """There is none."""

    def used(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def refused(self, why: str) -> None:
        """Do nothing."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""

    def preview(self, index: int, frames: Frames) -> None:
        """Do nothing."""
