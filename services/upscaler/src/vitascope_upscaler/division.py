"""How much of a frame is worked on at once: its size and a budget alone decide, so the load never changes a result."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vitascope_upscaler.network import Network

_IMAGE_BYTES = 12
"""Memory of a pixel of the frame as floats."""

_MOST_VALUES = 2**31 - 1
"""Of one tensor: beyond, convolutions take slow ways or none."""

_STRIP_BYTES = {"cpu": 2**26, "cuda": 2**30}
"""Memory of a strip at most, by device: a CPU is faster while layers stay near its cache, a GPU is busy by then."""

_ROWS_A_HALO = 16
"""Rows of a strip for each row of a halo, if the budget allows: the rows around it are then an eighth of the work."""

_BATCH_CELLS = {"cpu": 1, "cuda": 2**20}
"""Cells of a batch of frames. A GPU is busy by then; on a CPU one frame at a time is as fast, and sums in one order."""


@dataclass(frozen=True, slots=True)
class Division:
    """How frames are divided.

    Attributes:
        batch: Frames at once.
        band: Rows of cells for which the body runs at once, without what it sees around them.
        strip: Rows of cells for which the tail runs at once, likewise.
    """

    batch: int
    band: int
    strip: int


def divided(network: Network, height: int, width: int, area: float, budget: int, *, banded: bool) -> Division | None:
    """Return how frames of ``height`` x ``width`` cells are divided, or None if they do not fit the budget.

    Args:
        network: What they run through.
        height: Rows of cells.
        width: Cells of a row.
        area: Pixels of the result for each cell.
        budget: Bytes of memory for what is worked on at once. The frames themselves, as bytes, come on top.
        banded: Whether the body may run on parts of a frame, at the cost of computing what it sees around each again.
    """
    if most_cells(network, budget) >= height * width:
        band = height
    else:
        seen = most_cells(network, budget) // width
        band = seen - 2 * (network.body_halo + network.tail_halo)
        if not banded or band < 1:
            return None
    rows = min(height, band + 2 * (network.body_halo + network.tail_halo))
    batch = max(1, min(_BATCH_CELLS[network.device.type], most_cells(network, budget)) // (rows * width))
    strip = _strip_rows(network, rows, width * batch, network.tail_bytes + _colours_bytes(network, area), budget)
    return None if strip < 1 else Division(batch, band, min(strip, band))


def most_cells(network: Network, budget: int) -> int:
    """Return how many cells the body can work on at once."""
    image = _IMAGE_BYTES * network.cell**2
    return min(budget // max(network.body_bytes + image, 1), _MOST_VALUES // network.most_channels[0])


def most_pixels(network: Network, budget: int) -> int:
    """Return how many pixels a frame may have that is not worked on in bands."""
    return most_cells(network, budget) * network.cell**2


def bytes_a_pixel(network: Network) -> float:
    """Return the memory that a frame needs for each of its pixels, unless it is worked on in bands."""
    return network.body_bytes / network.cell**2 + _IMAGE_BYTES


def _colours_bytes(network: Network, area: float) -> int:
    """Return the memory, for each cell, of the network's output and of what it becomes while it is resized."""
    return math.ceil(12 * network.factor**2 + 40 * area + 24 * network.factor * math.sqrt(area))


def _strip_rows(network: Network, rows: int, width: int, cell_bytes: int, budget: int) -> int:
    """Return how many of ``rows`` the tail works on at once, below 1 if the budget holds none.

    ``width`` is that of all frames of a batch together.
    """
    held = (network.held_bytes + _IMAGE_BYTES * network.cell**2) * rows * width
    most = min((budget - held) // cell_bytes, _MOST_VALUES // network.most_channels[1]) // width
    # No larger than is fast, but not so thin that much of the work is for what is cut off.
    usual = _STRIP_BYTES[network.device.type] // (cell_bytes * width)
    wanted = max(usual, _ROWS_A_HALO * network.tail_halo)
    if rows <= min(most, wanted + 2 * network.tail_halo):
        return rows
    return min(wanted, most - 2 * network.tail_halo)
