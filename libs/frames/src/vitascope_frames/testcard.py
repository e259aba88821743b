"""The testcard: a source that draws exact, countable frames in no time, or in a chosen time.

Faults, fan-out and load are tried on it: what a lost, doubled or swapped frame would look like is known beforehand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vitascope_core.card import Defaults, Limits, Mode, ModelCard
from vitascope_core.job import JobSpec
from vitascope_core.ports import Control
from vitascope_frames.checkpoints import Checkpoint, Checkpoints, Kept, NoCheckpoints, preview_steps
from vitascope_frames.chunk import Chunk, Frames

MODEL_ID = "testcard"

# The upper half of a picture is 4 x 6 blocks, black or white: 20 bits of the frame's number and 4 that check them.
# Blocks that large survive scaling and H.264.
_ROWS, _COLUMNS = 4, 6
_NIBBLES = 5
_MAX_NUMBER = 16**_NIBBLES - 1
_GREY = (80, 176)
"""Between these a block is neither black nor white: a blend of two frames, or no testcard at all."""

_LOCK_POLL_S = 0.05
_NO_CHECKPOINTS = NoCheckpoints()


class Testcard:
    """Draws test pictures at a chosen pace.

    Like a real engine it has one device: the steps of two jobs exclude each other, and so do the chunks of two jobs,
    while the chunks of one job are made beside the steps of the next. It goes on at checkpoints as one does.
    """

    __test__: ClassVar[bool] = False  # pytest would take the name for a test's

    def __init__(self, step_s: float = 0.0, chunk_s: float = 0.0, checkpoint_s: float = 0.0) -> None:
        """Set the pace.

        Args:
            step_s: Seconds that a denoising step takes.
            chunk_s: Seconds that a chunk takes, besides drawing it.
            checkpoint_s: Seconds between checkpoints; 0 for none.
        """
        self._step_s = step_s
        self._chunk_s = chunk_s
        self._checkpoint_s = checkpoint_s
        self._steps = threading.Lock()
        self._chunks = threading.Lock()

    def chunks(
        self, spec: JobSpec, control: Control, checkpoints: Checkpoints = _NO_CHECKPOINTS
    ) -> Iterator[Chunk | Kept]:
        """Yield the chunks of every output, cut as ``spec.cuts`` says.

        Raises:
            Stopped: From ``control.tick``, at once when told so.
        """
        told = threading.Event()
        control.on_stop(told.set)
        kept = self._denoise(spec, control, checkpoints, told)
        for output in range(spec.outputs):
            if output in kept:
                yield Kept(output)
                continue
            start = 0
            for index in range(len(spec.cuts)):
                # Released before the chunk leaves: whoever takes it may keep this generator waiting for ever.
                with _held(self._chunks, control):
                    told.wait(self._chunk_s)
                    control.tick()
                    chunk = _chunk(spec, output, index, start)
                yield chunk
                start += spec.cuts[index]

    def _denoise(
        self, spec: JobSpec, control: Control, checkpoints: Checkpoints, told: threading.Event
    ) -> frozenset[int]:
        """Take the steps that are left; return the outputs that need not be made again."""
        steps, mark = spec.denoise.num_inference_steps, _mark(spec)
        found = checkpoints.newest() if self._checkpoint_s else None
        if found is not None and found.data == mark:
            checkpoints.used(found)
        elif found is not None:
            checkpoints.refused("it is of another spec")
            found = None
        step, seconds = (found.step, found.seconds) if found else (0, 0.0)
        wanted = threading.Event()
        control.on_draining(wanted.set)
        saved, saved_s = step, seconds
        shown = preview_steps(steps, spec.denoise.previews)
        with _held(self._steps, control):
            while step < steps:
                told.wait(self._step_s)
                if self._checkpoint_s and control.handing_back and step > saved:
                    checkpoints.save(Checkpoint(step, seconds, mark))
                control.tick(step=step + 1, steps=steps)
                step, seconds = step + 1, seconds + self._step_s
                if step in shown:
                    size = spec.denoise.width, spec.denoise.height
                    checkpoints.preview(shown.index(step), draw(0, *size, spec.denoise.seeds[0])[None])
                due = wanted.is_set() or step == steps or seconds - saved_s >= self._checkpoint_s
                if self._checkpoint_s and due:
                    checkpoints.save(Checkpoint(step, seconds, mark))
                    saved, saved_s = step, seconds
                    wanted.clear()
        return checkpoints.kept if found is not None and found.step == steps else frozenset()


def draw(number: int, width: int, height: int, seed: int) -> Frames:
    """Draw one frame, uint8 (height, width, 3).

    Above, the number as blocks for `read_number`; below, the seed's colour and a mark that moves with the number.

    Args:
        number: 0 to 2**20 - 1.
        width: At least 16.
        height: At least 16.
        seed: Chooses the colour.
    """
    half = height // 2
    colour = colour_of(seed)
    frame = np.empty((height, width, 3), np.uint8)
    frame[:half] = _blocks(number)[np.arange(half) * _ROWS // half][:, np.arange(width) * _COLUMNS // width, None]
    frame[half:] = colour
    side = max(2, min(width, height) // 8)
    left = number * max(1, side // 4) % (width - side + 1)
    top = half + (height - half - side) // 2
    frame[top : top + side, left : left + side] = 255 - colour
    return frame


def read_number(frame: Frames) -> int:
    """Read a frame's number from its pixels, also after scaling or lossy coding.

    Raises:
        ValueError: The blocks are unclear or contradict each other: no testcard, or a blend of two.
    """
    grey = frame[: frame.shape[0] // 2, :, :3].mean(axis=2)
    cells = [_centre(grey, row, column) for row in range(_ROWS) for column in range(_COLUMNS)]
    if any(_GREY[0] < cell < _GREY[1] for cell in cells):
        raise ValueError("the picture's blocks are neither black nor white")
    value = int("".join("1" if cell >= _GREY[1] else "0" for cell in cells), 2)
    number, check = divmod(value, 16)
    if check != _check(number):
        raise ValueError(f"the picture's number {number} does not match its check digit")
    return number


def colour_of(seed: int) -> npt.NDArray[np.uint8]:
    """Return the RGB colour of a seed's pictures, neither dark nor bright."""
    mixed = (seed + 1) * 0x9E3779B97F4A7C15  # 2**64 / golden ratio: neighbouring seeds get distant colours
    return np.array([64 + (mixed >> shift & 127) for shift in (57, 49, 41)], np.uint8)


def testcard_card(pool: str) -> ModelCard:
    """Return the card of a pool that serves the testcard."""
    side = Limits(16, 4096, 2)
    return ModelCard(
        pool=pool,
        id=MODEL_ID,
        modes=(Mode.TEXT_TO_VIDEO, Mode.TEXT_TO_IMAGE),
        width=side,
        height=side,
        num_frames=Limits(1, 100_000),
        num_inference_steps=Limits(1, 1000),
        defaults=Defaults(
            width=256, height=256, num_inference_steps=4, num_frames=33, fps=Fraction(16), guidance_scale=1.0
        ),
        honours=("negative_prompt", "guidance_scale", "previews"),
        max_pixels=2**33,  # 100,000 frames of the default size fit
        pipeline="Testcard",
        note="Draws numbered test pictures; prompts are accepted and change nothing.",
    )


testcard_card.__test__ = False  # type: ignore[attr-defined]  # as for the class


@contextmanager
def _held(lock: threading.Lock, control: Control) -> Iterator[None]:
    while not lock.acquire(timeout=_LOCK_POLL_S):
        control.tick()
    try:
        yield
    finally:
        lock.release()


def _chunk(spec: JobSpec, output: int, index: int, start: int) -> Chunk:
    width, height, seed = spec.denoise.width, spec.denoise.height, spec.denoise.seeds[output]
    frames = np.empty((spec.cuts[index], height, width, 3), np.uint8)
    for place in range(len(frames)):
        frames[place] = draw(start + place, width, height, seed)
    return Chunk(
        frames=frames,
        output=output,
        index=index,
        start=start,
        last=index == len(spec.cuts) - 1,
        fps=spec.fps,
        lead=draw(start - 1, width, height, seed) if start else None,
    )


def _mark(spec: JobSpec) -> bytes:
    # All that a picture depends on.
    return repr((spec.denoise, spec.cuts, spec.fps)).encode()


def _check(number: int) -> int:
    # Weighted, so that swapped digits show; the constant makes an all-black picture invalid.
    return (10 + sum((place + 1) * (number >> 4 * place & 15) for place in range(_NIBBLES))) % 16


def _blocks(number: int) -> Frames:
    if not 0 <= number <= _MAX_NUMBER:
        raise ValueError(f"a testcard's number is 0 to {_MAX_NUMBER}, not {number}")
    value = number * 16 + _check(number)
    bits = [value >> place & 1 for place in reversed(range(_ROWS * _COLUMNS))]
    return (np.array(bits, np.uint8) * 255).reshape(_ROWS, _COLUMNS)


def _centre(grey: npt.NDArray[np.float64], row: int, column: int) -> float:
    """Return the mean of the middle of a block: its rim may be blurred into its neighbours."""
    height, width = grey.shape[0] / _ROWS, grey.shape[1] / _COLUMNS
    top, left = int((row + 0.25) * height), int((column + 0.25) * width)
    bottom, right = int((row + 0.75) * height), int((column + 0.75) * width)
    return float(grey[top : max(bottom, top + 1), left : max(right, left + 1)].mean())
