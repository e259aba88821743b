"""The stage: chunks, options, weights and limits."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench import literal_esrgan
from vitascope_core.errors import DeviceOutOfMemory, InvalidRequest, InvalidSettings, InvalidWeights
from vitascope_core.plan import InterpolateOptions, UpscaleOptions
from vitascope_frames.chunk import Chunk
from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.blending import twin_of
from vitascope_upscaler.settings import SCALES, UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler
from vitascope_upscaler.upscaling import upscale
from vitascope_weights.device import Device

MIB = 2**20


@pytest.fixture
def settings(weights_folder) -> UpscalerSettings:
    return UpscalerSettings(str(weights_folder), device=Device.CPU)


@pytest.fixture
def upscaler(settings) -> Upscaler:
    return Upscaler(settings)


@pytest.fixture
def chunk(clip) -> Chunk:
    frames = clip(3, 18, 26)
    return Chunk(frames[1:], 1, 2, 5, last=True, fps=Fraction(24000, 1001), lead=frames[0])


@pytest.fixture
def compact_file(weights_of, tmp_path):
    torch.save({"params": weights_of(Compact(8, 3, 4))}, tmp_path / "compact.pth")
    return str(tmp_path / "compact.pth")


def test_a_chunk_keeps_all_but_its_size_and_its_lead(upscaler, chunk) -> None:
    made = upscaler.apply(chunk, UpscaleOptions())

    assert made.frames.shape == (2, 72, 104, 3)
    assert made.lead is None
    assert (made.output, made.index, made.start, made.last, made.fps) == (1, 2, 5, True, Fraction(24000, 1001))


@pytest.mark.parametrize(
    ("scale", "doublings", "unshuffle"), [(2, 2, 2), (4.0, 2, 1), (8, 3, 1), (3, 2, 1), (1.5, 2, 1)]
)
def test_each_scale_is_made_by_its_network(upscaler, network, chunk, scale, doublings, unshuffle) -> None:
    made = upscaler.apply(chunk, UpscaleOptions(scale))
    own = network(Rrdb(8, 1, 4, unshuffle, doublings))

    assert np.array_equal(made.frames, upscale(own, chunk.frames, scale, budget=2**30))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (UpscaleOptions(0), "upscaling_scale"),
        (UpscaleOptions(0.9), "upscaling_scale"),
        (UpscaleOptions(8.1), "upscaling_scale"),
        (UpscaleOptions(float("nan")), "upscaling_scale"),
        (UpscaleOptions(True), "upscaling_scale"),
        (UpscaleOptions(model_path="owner/other"), "upscaling_model_path"),
    ],
)
def test_options_that_no_card_offers_are_refused_before_anything_is_loaded(chunk, options, field) -> None:
    upscaler = Upscaler(UpscalerSettings("/no/weights", device=Device.CPU))

    with pytest.raises(InvalidRequest) as caught:
        upscaler.apply(chunk, options)

    assert caught.value.field == field


def test_the_options_of_another_transform_are_a_mistake(upscaler, chunk) -> None:
    with pytest.raises(TypeError, match="InterpolateOptions"):
        upscaler.apply(chunk, InterpolateOptions())


def test_a_request_may_name_weights_that_are_allowed(settings, compact_file, chunk) -> None:
    upscaler = Upscaler(replace(settings, allowed_models=(compact_file,)))
    own, named, other = (
        upscaler.apply(chunk, UpscaleOptions(4, path)).frames for path in ("", settings.model_path, compact_file)
    )

    assert np.array_equal(own, named)
    assert not np.array_equal(own, other)


def test_weights_that_cannot_be_loaded_fail_at_start_and_at_a_chunk(chunk) -> None:
    upscaler = Upscaler(UpscalerSettings("/no/weights", device=Device.CPU))

    with pytest.raises(InvalidWeights, match="/no/weights"):
        upscaler.load()
    with pytest.raises(InvalidWeights, match="/no/weights"):
        upscaler.apply(chunk, UpscaleOptions())


def test_every_network_that_is_offered_is_loaded_at_start(settings, weights_folder, monkeypatch) -> None:
    from vitascope_upscaler import upscaler as module

    loads, load = [], module.load_checkpoint
    monkeypatch.setattr(module, "load_checkpoint", lambda path: (loads.append(path.name), load(path))[1])
    Upscaler(settings).load()
    Upscaler(replace(settings, scales=(3.0,))).load()

    assert loads == [f"RealESRGAN_x{scale}.pth" for scale in (4, 2, 8, 4)]


def test_weights_that_made_room_and_moved_are_found(settings, weights_folder, chunk, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(weights_folder, folder)
    upscaler = Upscaler(replace(settings, model_path=str(folder), loaded_models=1))
    before = upscaler.apply(chunk, UpscaleOptions(2)).frames
    upscaler.apply(chunk, UpscaleOptions(4))
    old = folder / "RealESRGAN_x2.pth"
    save_file(torch.load(old, weights_only=True)["params"], old.with_suffix(".safetensors"))
    old.unlink()

    assert np.array_equal(upscaler.apply(chunk, UpscaleOptions(2)).frames, before)


def test_a_full_device_is_told_as_one(upscaler, chunk, monkeypatch) -> None:
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vitascope_upscaler.upscaling.divided", full)

    with pytest.raises(DeviceOutOfMemory, match="while upscaling"):
        upscaler.apply(chunk, UpscaleOptions())


def test_a_card_says_what_requests_may_ask_for(settings, compact_file) -> None:
    card = Upscaler(replace(settings, allowed_models=(compact_file, settings.model_path), memory_mib=10)).load()
    # Of 8 features and a dense block of 24, in float32; and the frame's own colours.
    pixels = 10 * MIB // (4 * (3 * 8 + 2 * 24) + 12)

    assert (card.scales, card.models) == (SCALES, (settings.model_path, compact_file))
    assert card.max_pixels[3:] == (pixels,) * 5
    assert card.max_pixels[1] == 10 * MIB // (4 * (3 * 8 + 2 * 24) + 12 * 4) * 4


def one_frame(clip, height, width) -> Chunk:
    return Chunk(clip(1, height, width), 0, 0, 0, last=True, fps=Fraction(1))


def test_a_frame_beyond_the_memory_is_refused_with_the_figure(settings, clip) -> None:
    upscaler = Upscaler(replace(settings, memory_mib=1, scales=(4.0,)))
    most = upscaler.load().max_pixels[0]

    assert 50 * 69 <= most < 50 * 70
    assert upscaler.apply(one_frame(clip, 50, 69), UpscaleOptions()).frames.shape == (1, 200, 276, 3)
    said = f"size must be at most {most} pixels in all: RRDB with 1 blocks, x4 needs 300 bytes for each, of 1 MiB"
    with pytest.raises(InvalidRequest, match=said) as told:
        upscaler.apply(one_frame(clip, 50, 70), UpscaleOptions())
    assert told.value.field == "size"


@pytest.mark.parametrize(("banded", "size"), [(False, (5, 600)), (True, (60, 300))])
def test_rows_that_are_too_long_are_refused_as_such(settings, clip, banded, size) -> None:
    upscaler = Upscaler(replace(settings, memory_mib=1, banded=banded, scales=(4.0,)))

    with pytest.raises(InvalidRequest, match=r"size must be narrower: some rows of RRDB .* must fit 1 MiB"):
        upscaler.apply(one_frame(clip, *size), UpscaleOptions())


def test_a_frame_beyond_the_memory_is_worked_on_in_bands_if_that_is_wanted(settings, upscaler, clip) -> None:
    chunk = Chunk(clip(1, 120, 60), 0, 0, 0, last=True, fps=Fraction(1))
    banded = Upscaler(replace(settings, memory_mib=1, banded=True, scales=(4.0,)))

    assert banded.load().max_pixels == ()
    assert np.array_equal(banded.apply(chunk, UpscaleOptions()).frames, upscaler.apply(chunk, UpscaleOptions()).frames)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_path": " "}, "model_path must name weights"),
        ({"model_path": "https://x/y"}, "model_path must be a local path or a Hugging Face repo id, not a URL"),
        ({"allowed_models": ("a/b", "s3://x")}, "allowed_models must be a local path"),
        ({"scales": ()}, "scales must be from 1 to 8, got none"),
        ({"scales": (4.0, 0.5)}, "scales must be from 1 to 8, got 4, 0.5"),
        ({"scales": (9.0,)}, "scales must be from 1 to 8"),
        ({"memory_mib": 0}, "memory_mib must be from 1 to 131072"),
        ({"memory_mib": 131073}, "memory_mib must be from 1 to 131072"),
        ({"loaded_models": 0}, "loaded_models must be at least 1"),
        ({"model_path": "a/realesr-general-x4v3.pth", "denoise_strength": 1.1}, "denoise_strength must be from 0 to 1"),
        ({"denoise_strength": 0.5}, "denoise_strength is for weights named realesr-general-x4v3"),
    ],
)
def test_settings_are_checked(values, said) -> None:
    with pytest.raises(InvalidSettings, match=said):
        UpscalerSettings(**values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidSettings, match="no GPU"):
        Upscaler(UpscalerSettings(device=Device.CUDA))


@pytest.fixture
def general(weights_of, tmp_path):
    """The two files of the general network, as their authors name them."""
    for name, seed in (("realesr-general-x4v3.pth", 1), ("realesr-general-wdn-x4v3.pth", 2)):
        torch.save({"params": weights_of(Compact(8, 3, 4), seed)}, tmp_path / name)
    return tmp_path / "realesr-general-x4v3.pth"


@pytest.mark.parametrize("strength", [0, 0.25, 1])
def test_noise_is_removed_as_strongly_as_the_blend_says(general, weights_of, chunk, strength) -> None:
    upscaler = Upscaler(UpscalerSettings(str(general), device=Device.CPU, denoise_strength=strength))
    first, second = (weights_of(Compact(8, 3, 4), seed) for seed in (1, 2))
    blend = {name: strength * first[name] + (1 - strength) * second[name] for name in first}

    made = upscaler.apply(chunk, UpscaleOptions()).frames

    assert np.abs(made.astype(int) - literal_esrgan.upscale(blend, chunk.frames, 4)).max() <= 1


def test_without_a_strength_the_general_network_is_used_alone(general, network, chunk) -> None:
    (general.with_name("realesr-general-wdn-x4v3.pth")).unlink()
    made = Upscaler(UpscalerSettings(str(general), device=Device.CPU)).apply(chunk, UpscaleOptions()).frames

    assert np.array_equal(made, upscale(network(Compact(8, 3, 4)), chunk.frames, 4, budget=2**30))


def test_a_twin_that_is_missing_or_of_another_network_is_told(general, weights_of) -> None:
    twin = general.with_name("realesr-general-wdn-x4v3.pth")
    settings = UpscalerSettings(str(general), device=Device.CPU, denoise_strength=0.5)
    torch.save(weights_of(Compact(8, 2, 4)), twin)
    with pytest.raises(InvalidWeights, match="are of different networks: compact with 3 convolutions, x4 and compact"):
        Upscaler(settings).load()
    twin.unlink()
    with pytest.raises(InvalidWeights, match=r"realesr-general-wdn-x4v3.pth: no such file"):
        Upscaler(settings).load()


@pytest.mark.parametrize(
    ("source", "twin"),
    [
        ("owner/name:realesr-general-x4v3.pth", "owner/name:realesr-general-wdn-x4v3.pth"),
        ("/realesr-general-x4v3/realesr-general-x4v3.pth", "/realesr-general-x4v3/realesr-general-wdn-x4v3.pth"),
        ("owner/name:RealESRGAN_x4.pth", None),
    ],
)
def test_the_twin_lies_beside_the_network(source, twin) -> None:
    assert twin_of(source) == twin
