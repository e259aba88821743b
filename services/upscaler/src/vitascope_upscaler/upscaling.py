"""Larger frames: through the network, resized where it enlarges by another factor, rounded; part by part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from vitascope_frames.chunk import Frames
from vitascope_upscaler.architecture import COLOURS
from vitascope_upscaler.division import Division, divided
from vitascope_upscaler.network import Network, Parts
from vitascope_upscaler.resampling import Resampler

_WHITE = 255


class BeyondBudget(Exception):
    """A frame is larger than the budget allows."""


def upscaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return rows and columns of an enlarged frame."""
    return int(height * scale), int(width * scale)


def upscale(
    network: Network,
    frames: Frames,
    scale: float,
    *,
    budget: int,
    banded: bool = False,
    parts: Parts | None = None,
) -> Frames:
    """Return every frame enlarged: what `upscaled` yields, in one.

    Returns:
        uint8 (T, int(H * scale), int(W * scale), C).

    Raises:
        BeyondBudget: The frames are too large for the budget.
    """
    return joined(upscaled(network, frames, scale, budget=budget, banded=banded, parts=parts), len(frames))


def joined(parts: Iterator[Frames], count: int) -> Frames:
    """Return ``count`` frames, which come in parts, as one array."""
    whole = next(parts)
    if len(whole) < count:
        first, done = whole, len(whole)
        whole = np.empty((count, *first.shape[1:]), np.uint8)
        whole[:done] = first
        del first
        for part in parts:
            whole[done : done + len(part)] = part
            done += len(part)
    return whole


def upscaled(
    network: Network,
    frames: Frames,
    scale: float,
    *,
    budget: int,
    banded: bool = False,
    parts: Parts | None = None,
) -> Iterator[Frames]:
    """Yield every frame enlarged, a few at a time: memory does not grow with their number.

    Args:
        network: Enlarges by a factor of its own; by bicubic interpolation the rest is made up for.
        frames: uint8 (T, H, W, 3 or 4). The network does not see a fourth channel, which is enlarged by interpolation.
        scale: By how much height and width grow; fractions of a pixel are dropped.
        budget: Bytes of the device's memory for what is worked on at once. What is given and what is made comes on top,
            as uint8: on a CPU a frame, on a GPU two batches.
        banded: Whether a frame beyond the budget is worked on in bands; see `divided`.
        parts: The network's parts as they are to be run; None for its own.

    Yields:
        uint8 (n, int(H * scale), int(W * scale), C), in order.

    Raises:
        BeyondBudget: The frames are too large for the budget.
    """
    count, height, width, channels = frames.shape
    cells = -(-height // network.cell), -(-width // network.cell)
    after = upscaled_size(height, width, scale)
    area = after[0] * after[1] / (cells[0] * cells[1])
    division = divided(network, *cells, area, budget, banded=banded)
    if division is None:
        raise BeyondBudget
    work = _Work(network, parts or Parts(network.body, network.tail), (height, width), after, division)
    download = _Download(network.device)
    before: Frames | None = None
    for first in range(0, count, division.batch):
        batch = frames[first : first + division.batch]
        large = np.empty((len(batch), *after, channels), np.uint8)
        # Not around the loop: the mode would be the caller's as well while it has what is yielded.
        with torch.inference_mode():
            for begin, end, made in work.parts(_uploaded(batch, network.device)):
                download.put(made, large[:, begin:end])
        # The end of this batch may still be on its way; that of the one before it is not.
        if before is not None:
            yield before
        before = large
        del large  # whoever takes a batch may free it
    download.finish()
    if before is not None:
        yield before


class _Work:
    """One size of frames on its way through the network."""

    def __init__(
        self, network: Network, parts: Parts, before: tuple[int, int], after: tuple[int, int], division: Division
    ) -> None:
        self._network = network
        self._parts = parts
        self._division = division
        self._size = before
        self._after = after
        self._own = before[0] * network.factor // network.cell, before[1] * network.factor // network.cell
        self._colours = Resampler(self._own, after, network.device)
        self._opacity = Resampler(before, after, network.device)

    def parts(self, frames: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """Yield finished rows of uint8 (N, H, W, C): the first, the one behind the last, uint8 (N, rows, W', C)."""
        for begin, end in _spans(self._after[0], self._rows_for(self._division.band)):
            features, offset = self._features(frames, *self._cells_for(begin, end))
            for low, high in _spans(end - begin, self._rows_for(self._division.strip)):
                rows = begin + low, begin + high
                made = [_as_bytes(self._enlarged(features, offset, *rows))]
                if frames.shape[3] > COLOURS:
                    made.append(_as_bytes(self._rest(frames, *rows)))
                yield *rows, (torch.cat(made, 3) if len(made) > 1 else made[0])
            del features  # or the next band's would be made beside it

    def _rows_for(self, cells: int) -> int:
        """Return how many rows of the result rows of cells make, at least about; one is always."""
        grid = -(-self._size[0] // self._network.cell)
        if cells >= grid:
            return self._after[0]
        if self._own[0] == self._after[0]:
            return cells * self._network.factor
        # Rows in between are made of some of the next cells as well.
        return max(1, (cells - 2) * self._after[0] // grid)

    def _cells_for(self, begin: int, end: int) -> tuple[int, int]:
        """Return the rows of cells, first and behind the last, that rows of the result are made of."""
        low, high = self._colours.needed(begin, end)
        return low // self._network.factor, -(-high // self._network.factor)

    def _features(self, frames: Tensor, begin: int, end: int) -> tuple[Tensor, int]:
        """Return what the body makes of rows of cells and what the tail sees around them, and its first row."""
        network, cell = self._network, self._network.cell
        grid = -(-self._size[0] // cell)
        low, high = max(0, begin - network.tail_halo), min(grid, end + network.tail_halo)
        top, bottom = max(0, low - network.body_halo), min(grid, high + network.body_halo)
        pixels = _as_floats(frames[:, top * cell : bottom * cell, :, :COLOURS])
        features = self._parts.body(_filled_up(pixels, cell))
        return features[:, :, low - top : high - top], low

    def _enlarged(self, features: Tensor, offset: int, begin: int, end: int) -> Tensor:
        """Return rows of the result, float32; ``offset`` is the row of cells where the features begin."""
        network, halo = self._network, self._network.tail_halo
        low, high = self._cells_for(begin, end)
        top, bottom = max(0, low - halo - offset), min(features.shape[2], high + halo - offset)
        out = self._parts.tail(features[:, :, top:bottom])
        return self._colours.resized(out, begin, end, (offset + top) * network.factor)

    def _rest(self, frames: Tensor, begin: int, end: int) -> Tensor:
        low, high = self._opacity.needed(begin, end)
        return self._opacity.resized(_as_floats(frames[:, low:high, :, COLOURS:]), begin, end, low)


class _Download:
    """Fetches finished parts from the device, each under the computing of the next."""

    def __init__(self, device: torch.device) -> None:
        self._stream = _stream(device) if device.type == "cuda" else None
        self._under_way: tuple[torch.cuda.Event, Tensor, npt.NDArray[np.uint8]] | None = None

    def put(self, made: Tensor, place: npt.NDArray[np.uint8]) -> None:
        """Write uint8 ``made`` to ``place``, now or until the next call."""
        if self._stream is None:
            place[...] = made.numpy()
            return
        self._stream.wait_stream(torch.cuda.current_stream(made.device))
        with torch.cuda.stream(self._stream):
            host = torch.empty(made.shape, dtype=torch.uint8, pin_memory=True)
            host.copy_(made, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        made.record_stream(self._stream)
        self.finish()
        self._under_way = done, host, place

    def finish(self) -> None:
        """Wait until everything is where it belongs."""
        if self._under_way is not None:
            done, host, place = self._under_way
            done.synchronize()
            place[...] = host.numpy()
            self._under_way = None


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _spans(length: int, step: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + step, length)) for begin in range(0, length, step))


def _filled_up(frames: Tensor, cell: int) -> Tensor:
    """Return frames whose sides are multiples of ``cell``: mirrored beyond the right and lower edge."""
    right, bottom = -frames.shape[3] % cell, -frames.shape[2] % cell
    if not right and not bottom:
        return frames
    # What is thinner than the part that is missing has nothing to mirror.
    mirrored = right < frames.shape[3] and bottom < frames.shape[2]
    return F.pad(frames, (0, right, 0, bottom), "reflect" if mirrored else "replicate")


def _as_floats(frames: Tensor) -> Tensor:
    """Return uint8 (N, H, W, C) as float32 (N, C, H, W) in 0..1."""
    return frames.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(_WHITE)


def _as_bytes(frames: Tensor) -> Tensor:
    """Return float (N, C, H, W), held in 0..1 and rounded to nearest, as uint8 (N, H, W, C)."""
    levels = frames.clamp(0, 1).mul_(_WHITE).round_()
    return levels.permute(0, 2, 3, 1).to(torch.uint8, memory_format=torch.contiguous_format)


def _uploaded(frames: Frames, device: torch.device) -> Tensor:
    if device.type != "cuda":
        # A copy: what is given may be read-only.
        return torch.from_numpy(np.array(frames))
    staged = torch.empty(frames.shape, dtype=torch.uint8, pin_memory=True)
    np.copyto(staged.numpy(), frames)
    return staged.to(device, non_blocking=True)
