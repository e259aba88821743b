"""Whether a media file is all there.

Demuxers take a file that was cut short for one that ends early, and say nothing. Its outermost boxes know better.
"""

from __future__ import annotations

import os
from typing import BinaryIO

_MP4, _MATROSKA, _AVI = "mp4", "matroska", "avi"
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def breaks_off(file: BinaryIO, format_name: str) -> tuple[int, int] | None:
    """Return (bytes of the file, bytes that it should have at least) if it is cut short, else None.

    Args:
        file: Its position is lost.
        format_name: FFmpeg's name of the format; "" if it is not known.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    family = format_name or _family(head)
    if _MP4 in family:
        end = _boxes_end(file, size)
    elif _MATROSKA in family:
        end = _segment_end(file, size)
    elif _AVI in family:
        end = _riff_end(file, size)
    else:
        return None
    return (size, end) if end > size else None


def _family(head: bytes) -> str:
    if head[4:8] in _FIRST_BOXES:
        return _MP4
    if head[:4] == _EBML:
        return _MATROSKA
    return _AVI if head[:4] == b"RIFF" and head[8:12] == b"AVI " else ""


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Return where the last box of an MP4 or QuickTime file ends."""
    at = 0
    # What does not look like a box any more was put behind the file by somebody: that takes nothing from it.
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not name.isascii():
            return at if at else size
        at += length
    return at


def _segment_end(file: BinaryIO, size: int) -> int:
    """Return where the segment of a Matroska file ends; a live one does not say."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(16)
        length, digits = _vint(head[4:])
        if head[:4] not in (_EBML, _SEGMENT) or not digits:
            return size
        at += 4 + digits
        if length is None:
            return size
        at += length
        if head[:4] == _SEGMENT:
            return at
    return at


def _vint(data: bytes) -> tuple[int | None, int]:
    """Return (value, bytes) of a number of variable length; None for the one that means "unknown"."""
    digits = 9 - data[0].bit_length() if data else 9
    if digits > 8 or len(data) < digits:
        return None, 0
    value = int.from_bytes(data[:digits], "big") & ((1 << 7 * digits) - 1)
    return (None if value == (1 << 7 * digits) - 1 else value), digits


def _riff_end(file: BinaryIO, size: int) -> int:
    """Return where the last RIFF list of an AVI ends; large files have several."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return at if at else size
        length = int.from_bytes(head[4:], "little")
        at += 8 + length + length % 2
    # A writer that could not go back has left 0 there, and whoever pads leaves out the last byte.
    return at if at - 1 > size else size
