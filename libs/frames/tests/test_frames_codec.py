from __future__ import annotations

import json
import tracemalloc
import zlib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import safetensors.numpy

from vitascope_core.errors import InputLost
from vitascope_frames.chunk import Chunk
from vitascope_frames.codec import dumps, loads


def a_chunk(*, lead: bool = True, channels: int = 3, frames: int = 4) -> Chunk:
    pixels = np.random.default_rng(0).integers(0, 256, (frames + 1, 6, 10, channels), np.uint8)
    return Chunk(
        pixels[1:], output=2, index=5, start=40, last=True, fps=Fraction(24000, 1001), lead=pixels[0] if lead else None
    )


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("lead", [False, True])
def test_a_chunk_comes_back_as_it_went(lead, channels) -> None:
    chunk = a_chunk(lead=lead, channels=channels)

    back = loads(dumps(chunk))

    assert np.array_equal(back.frames, chunk.frames)
    assert (back.lead is None) == (not lead)
    assert not lead or np.array_equal(back.lead, chunk.lead)
    assert [getattr(back, name) for name in ("output", "index", "start", "last", "fps")] == [
        2,
        5,
        40,
        True,
        Fraction(24000, 1001),
    ]


def test_frames_that_do_not_lie_together_in_memory_are_stored_in_order() -> None:
    pixels = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 6, 4, 3).swapaxes(1, 2)
    chunk = Chunk(pixels, output=0, index=0, start=0, last=True, fps=Fraction(16))

    assert np.array_equal(loads(dumps(chunk)).frames, pixels)


def test_safetensors_itself_reads_a_stored_chunk(tmp_path) -> None:
    chunk = a_chunk()
    path = tmp_path / "chunk.safetensors"
    path.write_bytes(dumps(chunk))

    with safetensors.safe_open(path, "numpy") as file:
        identity = json.loads(file.metadata()["chunk"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict

    assert identity == {"output": 2, "index": 5, "start": 40, "last": True, "fps": "24000/1001"}
    assert np.array_equal(tensors["frames"], chunk.frames)
    assert np.array_equal(tensors["lead"], chunk.lead)


@pytest.mark.parametrize("start", [0, 9, 10, 99, 100])
def test_pixels_begin_at_a_multiple_of_eight(start) -> None:
    data = dumps(replace(a_chunk(), start=start))

    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_loading_copies_no_pixels() -> None:
    data = dumps(a_chunk(frames=10_000))
    tracemalloc.start()
    chunk = loads(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < chunk.frames.nbytes / 20


def with_header(**changes: object) -> bytes:
    """Return a chunk of before there were checksums, its header changed."""
    data = dumps(a_chunk())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]["crc32"]
    text = json.dumps(header | changes).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_a_chunk_of_before_there_were_checksums_is_read() -> None:
    assert np.array_equal(loads(with_header()).frames, a_chunk().frames)


def test_one_changed_bit_anywhere_is_a_lost_input() -> None:
    data = dumps(a_chunk())
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        if data.find(b"crc32", 0) <= place < data.find(b"crc32") + 5:
            continue  # without its name there is no checksum, and nothing else is damaged
        with pytest.raises(InputLost):
            loads(bytes(damaged))


def test_the_checksum_is_that_of_everything_but_itself() -> None:
    data = dumps(a_chunk())
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].rstrip()
    said = json.loads(text)["__metadata__"]["crc32"]

    assert f"{zlib.crc32(text.replace(said.encode(), b'') + data[8 + length :]):08x}" == said


def test_what_follows_a_chunk_is_damage() -> None:
    with pytest.raises(InputLost, match="checksum"):
        loads(dumps(a_chunk()) + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"not a chunk at all",
        dumps(a_chunk())[:-1],
        dumps(a_chunk())[:40],
        with_header(frames={"dtype": "F32", "shape": [1, 1, 1, 3], "data_offsets": [0, 12]}),
        with_header(frames={"dtype": "U8", "shape": [4, 6, 10], "data_offsets": [0, 240]}),
        with_header(frames={"dtype": "U8", "shape": [9, 6, 10, 3], "data_offsets": [0, 720]}),
        with_header(__metadata__={}),
        with_header(__metadata__={"chunk": '{"output":0,"index":0,"start":0,"last":true,"fps":"1/0"}'}),
        safetensors.numpy.save({"latents": np.zeros(3, np.float32)}),
    ],
    ids=str,
)
def test_damage_is_a_lost_input_that_names_its_cause(data) -> None:
    with pytest.raises(InputLost) as caught:
        loads(data)

    assert caught.value.__cause__ is not None
