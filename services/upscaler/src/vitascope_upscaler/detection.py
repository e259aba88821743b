"""Which network a checkpoint is of, told from the names and shapes of its tensors."""

from __future__ import annotations

import math
import re

from vitascope_core.errors import InvalidWeights
from vitascope_upscaler.architecture import COLOURS, Architecture, Compact, Rrdb
from vitascope_weights.tensors import Shapes, listed, misfits

_BLOCK = re.compile(r"body\.(\d+)\.rdb1\.conv1\.weight")
_UP = re.compile(r"conv_up(\d+)\.weight")
_PLACE = re.compile(r"body\.(\d+)\.weight")

_UNSHUFFLES = {COLOURS * side**2: side for side in (1, 2, 4)}
"""By the channels that the first convolution sees."""


def detect(shapes: Shapes) -> Architecture:
    """Return the network whose tensors these are, under today's names.

    Raises:
        InvalidWeights: It is none that is supported, or tensors are missing or do not fit; they are named.
    """
    if "conv_first.weight" in shapes:
        found: Architecture | None = _rrdb(shapes)
    elif len(shapes.get("body.0.weight", ())) == 4:
        found = _compact(shapes)
    else:
        found = None
    if found is None:
        raise InvalidWeights(
            "this is neither RRDBNet nor SRVGGNetCompact, the networks of Real-ESRGAN; "
            f"its {len(shapes)} tensors are {listed(sorted(shapes)) or 'none'}"
        )
    if faults := misfits(shapes, found.shapes()):
        raise InvalidWeights(f"this looks like {found.name}, but does not fit: {faults}")
    return found


def _rrdb(shapes: Shapes) -> Rrdb | None:
    first = shapes["conv_first.weight"]
    blocks = [int(match[1]) for name in shapes if (match := _BLOCK.fullmatch(name))]
    ups = [int(match[1]) for name in shapes if (match := _UP.fullmatch(name))]
    dense = shapes.get("body.0.rdb1.conv1.weight", ())
    if not blocks or len(first) != 4 or len(dense) != 4 or first[1] not in _UNSHUFFLES:
        return None
    unshuffle = _UNSHUFFLES[first[1]]
    if (1 << len(ups)) % unshuffle:
        return None
    # Counted: should a number be left out, the tensors do not fit.
    return Rrdb(first[0], len(blocks), dense[0], unshuffle, len(ups))


def _compact(shapes: Shapes) -> Compact | None:
    places = [int(match[1]) for name in shapes if (match := _PLACE.fullmatch(name)) and len(shapes[name]) == 4]
    last = shapes[f"body.{max(places)}.weight"]
    scale = math.isqrt(last[0] // COLOURS)
    # Without PReLU it would be another activation, and there is nothing to tell which.
    if len(places) < 2 or not scale or COLOURS * scale**2 != last[0] or len(shapes.get("body.1.weight", ())) != 1:
        return None
    return Compact(shapes["body.0.weight"][0], len(places) - 2, scale)
