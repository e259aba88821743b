"""Decoding as a stream changes no bit, and lets the first chunk go before the last is there."""

from __future__ import annotations

import threading
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from vitascope_core.errors import Final
from vitascope_denoiser.cutting import Cuts, cut
from vitascope_denoiser.decoding import Latents, VaeDecoder, to_frames
from vitascope_denoiser.engine import DiffusersEngine

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def vaes(load_pipe):
    loaded = {}

    def get(name, **settings):
        key = (name, *settings.items())
        if key not in loaded:
            loaded[key] = load_pipe(name, **settings).vae
        return loaded[key]

    return get


def noise(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("name", ["wan", "wan22"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_wan_streams_frame_by_frame_bit_equal_to_the_whole(name, precision, vaes):
    vae = vaes(name, vae_precision=precision)
    z = noise(1, 16, 4, 6, 4, dtype=vae.dtype)

    pieces = list(VaeDecoder(vae).pieces(Latents(z)))

    assert [piece.shape[2] for piece in pieces] == [1, 4, 4, 4]
    whole = vae.decode(z, return_dict=False)[0]
    assert torch.equal(torch.cat(pieces, dim=2), whole)
    assert np.array_equal(
        np.concatenate([to_frames(piece, signed=True) for piece in pieces]), to_frames(whole, signed=True)
    )


@pytest.mark.parametrize("name", ["wan", "wan22"])
def test_tiled_wan_streams_bit_equal_to_the_whole(name, vaes):
    vae = vaes(name, vae_tiling=True)
    ratio = vae.spatial_compression_ratio
    vae.enable_tiling(4 * ratio, 4 * ratio, 3 * ratio, 3 * ratio)
    z = noise(1, 16, 3, 9, 7, dtype=vae.dtype)

    pieces = list(VaeDecoder(vae).pieces(Latents(z)))

    assert [piece.shape[2] for piece in pieces] == [1, 4, 4]
    assert torch.equal(torch.cat(pieces, dim=2), vae.decode(z, return_dict=False)[0])


def test_other_vaes_decode_at_once(vaes):
    vae = vaes("flux")
    z = noise(1, 4, 6, 8)

    [piece] = VaeDecoder(vae).pieces(Latents(z))

    assert torch.equal(piece[:, :, 0], vae.decode(z, return_dict=False)[0])


def test_two_streams_and_a_whole_decode_do_not_disturb_each_other(vaes):
    vae = vaes("wan")
    first, second = noise(1, 16, 3, 4, 4), noise(1, 16, 3, 4, 4, seed=1)
    decoder = VaeDecoder(vae)

    pairs = []
    for pair in zip(decoder.pieces(Latents(first)), decoder.pieces(Latents(second)), strict=True):
        pairs.append(pair)
        vae.decode(noise(1, 16, 1, 4, 4, seed=2))

    for z, pieces in zip((first, second), zip(*pairs, strict=True), strict=True):
        assert torch.equal(torch.cat(pieces, dim=2), vae.decode(z, return_dict=False)[0])


def test_decoding_in_a_thread_is_undisturbed_by_denoising(load_pipe, new_spec, new_control):
    engine = DiffusersEngine(load_pipe("wan"))
    spec = new_spec(num_frames=17)
    [latents] = engine.denoise([spec], [new_control()])
    cuts = Cuts((17,), Fraction(16))
    [expected] = engine.decode(latents, cuts)
    made, done = [], threading.Event()

    def decode():
        while not done.is_set():
            made.extend(engine.decode(latents, cuts))

    thread = threading.Thread(target=decode)
    thread.start()
    while not made:
        [beside] = engine.denoise([spec], [new_control()])
    done.set()
    thread.join()

    assert torch.equal(beside.z, latents.z)
    assert all(np.array_equal(chunk.frames, expected.frames) for chunk in made)


def test_the_first_chunk_leaves_before_the_last_latent_frame_is_decoded(load_pipe, new_spec, control):
    pipe = load_pipe("wan")
    engine = DiffusersEngine(pipe)
    [latents] = engine.denoise([new_spec(num_frames=17)], [control])
    decoded = []
    pipe.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))

    chunks = engine.decode(latents, Cuts((4, 8, 5), Fraction(16)))

    next(chunks)
    assert len(decoded) == 2
    next(chunks)
    assert len(decoded) == 4
    next(chunks)
    assert len(decoded) == 5


def test_outputs_are_decoded_one_after_the_other(load_pipe, new_spec, control):
    engine = DiffusersEngine(load_pipe("wan"))
    [latents] = engine.denoise([new_spec(seeds=(1, 2), num_frames=5)], [control])

    chunks = list(engine.decode(latents, Cuts((3, 2), Fraction(8))))

    assert [(c.output, c.index, c.start, c.last, c.fps) for c in chunks] == [
        (0, 0, 0, False, 8),
        (0, 1, 3, True, 8),
        (1, 0, 0, False, 8),
        (1, 1, 3, True, 8),
    ]


@pytest.mark.parametrize("sizes", [(10,), (1, 9), (3, 3, 4), (1,) * 10, (6, 4)])
def test_chunks_join_to_the_frames_and_lead_with_the_last_frame_before(sizes):
    frames = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), np.uint8)

    chunks = list(cut([frames[:1], frames[1:5], frames[5:9], frames[9:]], Cuts(sizes, Fraction(16)), output=2))

    assert np.array_equal(np.concatenate([chunk.frames for chunk in chunks]), frames)
    assert tuple(len(chunk.frames) for chunk in chunks) == sizes
    assert [chunk.last for chunk in chunks] == [False] * (len(sizes) - 1) + [True]
    assert chunks[0].lead is None
    for before, chunk in pairwise(chunks):
        assert np.array_equal(chunk.lead, before.frames[-1])
        assert chunk.start == before.start + len(before.frames)
        assert chunk.output == 2


def test_pixels_that_are_no_numbers_end_the_job():
    with pytest.raises(Final, match="overflowed"):
        to_frames(torch.full((1, 3, 1, 2, 2), float("nan")), signed=True)


def test_arguments_of_a_sample_are_cut_with_it():
    latents = Latents(noise(2, 4, 3, 3), (torch.tensor([0.1, 0.2]), "x"), {"temb": None})

    second = latents.sample(1)

    assert second.z.shape == (1, 4, 3, 3)
    assert second.args == (torch.tensor([0.2]), "x")
