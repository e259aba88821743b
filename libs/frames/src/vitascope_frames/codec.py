"""A chunk as bytes: one safetensors object, so that any tool can look into a stored chunk.

The layout is safetensors' own: the length of a JSON header in eight bytes, the header, then the tensors' bytes. Both
directions are written here because a chunk is a hot path: one copy out, none in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from vitascope_core.errors import InputLost
from vitascope_frames.chunk import Chunk, Frames

_FRAMES = "frames"
_LEAD = "lead"
_IDENTITY = "chunk"
_LENGTH_BYTES = 8


def dumps(chunk: Chunk) -> bytes:
    """Return the chunk as a safetensors object: raw uint8 frames in (T, H, W, C) order, the lead behind them.

    The metadata's ``chunk`` is JSON with ``output``, ``index``, ``start``, ``last`` and ``fps`` as ``"num/den"``.
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

    header: dict[str, object] = {"__metadata__": {_IDENTITY: json.dumps(identity)}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "U8", "shape": tensor.shape, "data_offsets": (end, end + tensor.nbytes)}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    # Spaces up to a multiple of eight, as safetensors writes them, so that readers may map wider types in place.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "little"), text, *(t.data for t in tensors.values())))


def loads(data: bytes) -> Chunk:
    """Return the chunk that `dumps` wrote.

    The arrays are read-only views of ``data``, which they keep alive.

    Raises:
        InputLost: The object is cut short or is not a chunk.
    """
    try:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        body = _LENGTH_BYTES + length
        header = json.loads(data[_LENGTH_BYTES:body])
        identity = json.loads(header["__metadata__"][_IDENTITY])
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


def _tensor(data: bytes, body: int, entry: Mapping[str, Any]) -> Frames:
    if entry["dtype"] != "U8":
        raise ValueError(f"frames are U8, not {entry['dtype']}")
    begin, end = entry["data_offsets"]
    # frombuffer itself refuses to read past the end, reshape a size that is not the shape's.
    return np.frombuffer(data, np.uint8, count=end - begin, offset=body + begin).reshape(entry["shape"])
