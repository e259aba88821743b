"""A chunk as bytes: one safetensors object, so that any tool can look into a stored chunk.

The layout is safetensors' own: the length of a JSON header in eight bytes, the header, then the tensors' bytes. Both
directions are written here because a chunk is a hot path: one copy out, none in.

The object carries its own CRC-32, because nothing else can: two workers that hold one task both write it, and on two
kinds of hardware with different bytes, so what one of them recorded need not fit what lies there. A CRC, because bits
that rot are no attack, and zlib computes it faster than any cryptographic digest.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from vitascope_core.errors import InputLost
from vitascope_frames.chunk import Chunk, Frames

_FRAMES = "frames"
_LEAD = "lead"
_IDENTITY = "chunk"
_CHECKSUM = "crc32"
_LENGTH_BYTES = 8


def dumps(chunk: Chunk) -> bytes:
    """Return the chunk as a safetensors object: raw uint8 frames in (T, H, W, C) order, the lead behind them.

    The metadata's ``chunk`` is JSON with ``output``, ``index``, ``start``, ``last`` and ``fps`` as ``"num/den"``; its
    ``crc32`` is the CRC-32 of the header with that entry empty and of all tensors, eight hexadecimal digits.
    """
    identity = {
        "output": chunk.output,
        "index": chunk.index,
        "start": chunk.start,
        "last": chunk.last,
        "fps": f"{chunk.fps.numerator}/{chunk.fps.denominator}",
    }
    tensors = {_FRAMES: np.ascontiguousarray(chunk.frames)}
    if chunk.lead is not None:
        tensors[_LEAD] = np.ascontiguousarray(chunk.lead)

    metadata = {_IDENTITY: json.dumps(identity), _CHECKSUM: ""}
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "U8", "shape": tensor.shape, "data_offsets": (end, end + tensor.nbytes)}
        end += tensor.nbytes
    checksum = zlib.crc32(json.dumps(header).encode())
    for tensor in tensors.values():
        checksum = zlib.crc32(tensor.data, checksum)
    metadata[_CHECKSUM] = f"{checksum:08x}"
    text = json.dumps(header).encode()
    # Spaces up to a multiple of eight, as safetensors writes them, so that readers may map wider types in place.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "little"), text, *(t.data for t in tensors.values())))


def loads(data: bytes) -> Chunk:
    """Return the chunk that `dumps` wrote.

    The arrays are read-only views of ``data``, which they keep alive. A chunk of before there were checksums is read
    without one.

    Raises:
        InputLost: The object is cut short, differs from what was stored, or is not a chunk.
    """
    try:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        body = _LENGTH_BYTES + length
        text = data[_LENGTH_BYTES:body]
        header = json.loads(text)
        metadata = header["__metadata__"]
        if _CHECKSUM in metadata:
            _check(text, memoryview(data)[body:], metadata[_CHECKSUM])
        identity = json.loads(metadata[_IDENTITY])
        return Chunk(
            frames=_tensor(data, body, header[_FRAMES]),
            output=int(identity["output"]),
            index=int(identity["index"]),
            start=int(identity["start"]),
            last=bool(identity["last"]),
            fps=Fraction(identity["fps"]),
            lead=_tensor(data, body, header[_LEAD]) if _LEAD in header else None,
        )
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise InputLost(f"a stored chunk of {len(data)} bytes is damaged: {error!r}") from error


def _check(text: bytes, tensors: memoryview, checksum: str) -> None:
    # The quotes make it the entry and nothing else: inside the identity they are escaped.
    bare = text.rstrip(b" ").replace(f'"{checksum}"'.encode(), b'""', 1)
    found = f"{zlib.crc32(tensors, zlib.crc32(bare)):08x}"
    if found != checksum:
        raise ValueError(f"its bytes have the checksum {found}, its header says {checksum}")


def _tensor(data: bytes, body: int, entry: Mapping[str, Any]) -> Frames:
    if entry["dtype"] != "U8":
        raise ValueError(f"frames are U8, not {entry['dtype']}")
    begin, end = entry["data_offsets"]
    # frombuffer itself refuses to read past the end, reshape a size that is not the shape's.
    return np.frombuffer(data, np.uint8, count=end - begin, offset=body + begin).reshape(entry["shape"])
