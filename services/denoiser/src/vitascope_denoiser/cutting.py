"""Cutting a stream of decoded frames into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from vitascope_core.errors import Final
from vitascope_core.job import JobSpec
from vitascope_frames.chunk import Chunk, Frames


@dataclass(frozen=True, slots=True)
class Cuts:
    """How every output of a job is cut.

    Attributes:
        frames: Frames of each chunk, in order.
        fps: Frames a second.
    """

    frames: tuple[int, ...]
    fps: Fraction

    @classmethod
    def of(cls, spec: JobSpec) -> Cuts:
        """Return the cuts of a job."""
        return cls(spec.cuts, spec.fps)


def cut(pieces: Iterable[Frames], cuts: Cuts, output: int) -> Iterator[Chunk]:
    """Yield the chunks of one output, each as soon as its last frame is there.

    Args:
        pieces: uint8 (t, H, W, C) in order, of any lengths; taken one at a time, so memory holds a chunk and a piece.
        cuts: Where to cut.
        output: The chunks' output.

    Raises:
        Final: The pieces hold more or fewer frames than the cuts.
    """
    source = iter(pieces)
    held: list[Frames] = []
    lead: Frames | None = None
    start = 0
    for index, size in enumerate(cuts.frames):
        while (missing := size - sum(map(len, held))) > 0:
            piece = next(source, None)
            if piece is None:
                raise Final(f"the model made {start + size - missing} frames, not {sum(cuts.frames)}")
            held.append(piece)
        frames = held[0] if len(held) == 1 else np.concatenate(held)
        # Copies, so that a chunk does not keep its neighbours' frames alive.
        held = [frames[size:].copy()] if len(frames) > size else []
        chunk = Chunk(
            frames=np.ascontiguousarray(frames[:size]),
            output=output,
            index=index,
            start=start,
            last=index == len(cuts.frames) - 1,
            fps=cuts.fps,
            lead=lead,
        )
        lead = chunk.frames[-1].copy()
        start += size
        yield chunk
    if held or next(source, None) is not None:
        raise Final(f"the model made more than {sum(cuts.frames)} frames")
