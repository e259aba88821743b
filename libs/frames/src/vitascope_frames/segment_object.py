"""A segment as a stored object: the encoder's MP4 and a box that tells whether it is still what was stored.

The box is a ``uuid`` box behind ``ftyp``, where every reader skips what it does not know, so that a stored segment can
be played and joined as it is. At the end it would go unmissed in a segment that was cut short.
"""

from __future__ import annotations

import zlib

from vitascope_core.errors import InputLost

_NAME = bytes.fromhex("6bf601d8fa124a7ba5485e476290890b")
"""Names the box among all ``uuid`` boxes; drawn once."""
_SIZE = 4 + 4 + len(_NAME) + 4
_HEAD = _SIZE.to_bytes(4, "big") + b"uuid" + _NAME
_WITHIN = 256
"""``ftyp`` is shorter, so the box lies within the first bytes even if the length of ``ftyp`` is damaged."""


def sealed(segment: bytes) -> bytes:
    """Return the segment with the box in it: CRC-32 of all other bytes, big-endian.

    Args:
        segment: As `vitascope_frames.segments.encode_segment` makes it.
    """
    place = int.from_bytes(segment[:4], "big")
    front = segment[:place] + _HEAD
    rest = memoryview(segment)[place:]
    return b"".join((front, zlib.crc32(rest, zlib.crc32(front)).to_bytes(4, "big"), rest))


def check(data: bytes) -> None:
    """Return if the bytes are those that `sealed` returned, or a segment of before there was a box.

    Raises:
        InputLost: They are not.
    """
    place = data.find(_NAME, 0, _WITHIN)
    if place < 0:
        return
    rest = place + len(_NAME) + 4
    said = int.from_bytes(data[rest - 4 : rest], "big")
    found = zlib.crc32(memoryview(data)[rest:], zlib.crc32(data[: rest - 4]))
    if found != said:
        raise InputLost(
            f"a stored segment of {len(data)} bytes is damaged: "
            f"its bytes have the checksum {found:08x}, its header says {said:08x}"
        )
