"""The stage: chunks, options and the networks that are kept."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.literal_rife import seeded_weights
from vitascope_core.errors import DeviceOutOfMemory, InputLost, InvalidRequest, InvalidSettings, InvalidWeights
from vitascope_core.plan import InterpolateOptions, UpscaleOptions
from vitascope_frames.chunk import Chunk
from vitascope_interpolator import networks
from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_interpolator.interpolator import Interpolator
from vitascope_interpolator.networks import Networks
from vitascope_interpolator.settings import InterpolatorSettings, card_of
from vitascope_weights import weight_file
from vitascope_weights.device import Device

CPU = torch.device("cpu")


@pytest.fixture
def settings(weights_folder) -> InterpolatorSettings:
    return InterpolatorSettings(str(weights_folder), device=Device.CPU)


@pytest.fixture
def interpolator(settings) -> Interpolator:
    return Interpolator(settings)


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    torch.save(seeded_weights(RIFE_4_22_LITE.shapes(), seed=2), folder / "flownet.pkl")
    return folder


def chunks_of(frames, *sizes) -> list[Chunk]:
    chunks, start = [], 0
    for index, size in enumerate(sizes):
        lead = frames[start - 1] if start else None
        part = frames[start : start + size]
        chunks.append(Chunk(part, 0, index, start, last=index == len(sizes) - 1, fps=Fraction(16), lead=lead))
        start += size
    return chunks


@pytest.mark.parametrize("exp", [1, 2])
@pytest.mark.parametrize("sizes", [(5,), (2, 3), (1, 1, 3)])
def test_chunks_fit_together(interpolator, clip, sizes, exp) -> None:
    made = [interpolator.apply(chunk, InterpolateOptions(exp)) for chunk in chunks_of(clip(5, 20, 30), *sizes)]

    ends = np.cumsum([len(chunk.frames) for chunk in made]).tolist()
    assert [chunk.start for chunk in made] == [0, *ends[:-1]]
    assert ends[-1] == 4 * 2**exp + 1
    assert [(chunk.index, chunk.last) for chunk in made] == [(i, i == len(sizes) - 1) for i in range(len(sizes))]
    assert {(chunk.fps, chunk.lead) for chunk in made} == {(Fraction(16) * 2**exp, None)}


def test_a_video_of_one_frame_is_returned_as_it_is(interpolator, clip) -> None:
    (chunk,) = chunks_of(clip(1, 20, 30), 1)

    assert interpolator.apply(chunk, InterpolateOptions(3)) is chunk


def test_a_chunk_that_lost_its_lead_is_a_lost_input(interpolator, clip) -> None:
    chunk = replace(chunks_of(clip(3, 20, 30), 2, 1)[1], lead=None)

    with pytest.raises(InputLost, match="0-1 has no lead"):
        interpolator.apply(chunk, InterpolateOptions())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (InterpolateOptions(exp=0), "frame_interpolation_exp"),
        (InterpolateOptions(exp=5), "frame_interpolation_exp"),
        (InterpolateOptions(exp=True), "frame_interpolation_exp"),
        (InterpolateOptions(exp=1.5), "frame_interpolation_exp"),
        (InterpolateOptions(scale=3.0), "frame_interpolation_scale"),
        (InterpolateOptions(scale=0.0), "frame_interpolation_scale"),
        (InterpolateOptions(scale=True), "frame_interpolation_scale"),
        (InterpolateOptions(model_path="owner/other"), "frame_interpolation_model_path"),
    ],
)
def test_options_that_no_card_offers_are_refused_before_anything_is_loaded(clip, options, field) -> None:
    interpolator = Interpolator(InterpolatorSettings("/no/weights", device=Device.CPU))

    with pytest.raises(InvalidRequest) as caught:
        interpolator.apply(chunks_of(clip(2, 20, 30), 2)[0], options)

    assert caught.value.field == field


def test_the_options_of_another_transform_are_a_mistake(interpolator, clip) -> None:
    with pytest.raises(TypeError, match="UpscaleOptions"):
        interpolator.apply(chunks_of(clip(2, 20, 30), 2)[0], UpscaleOptions())


def test_a_request_may_name_weights_that_are_allowed(settings, other_weights, clip) -> None:
    interpolator = Interpolator(replace(settings, allowed_models=(str(other_weights),)))
    (chunk,) = chunks_of(clip(2, 40, 40), 2)
    own, named, other = (
        interpolator.apply(chunk, InterpolateOptions(model_path=path)).frames
        for path in ("", settings.model_path, str(other_weights))
    )

    assert np.array_equal(own, named)
    assert not np.array_equal(own, other)


def test_weights_that_cannot_be_loaded_fail_at_start_and_at_a_chunk(clip) -> None:
    interpolator = Interpolator(InterpolatorSettings("/no/weights", device=Device.CPU))

    with pytest.raises(InvalidWeights):
        interpolator.load()
    with pytest.raises(InvalidWeights):
        interpolator.apply(chunks_of(clip(2, 20, 30), 2)[0], InterpolateOptions())


def test_a_full_device_is_told_as_one(interpolator, clip, monkeypatch) -> None:
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("vitascope_interpolator.interpolator.interpolate", full)

    with pytest.raises(DeviceOutOfMemory, match="while interpolating"):
        interpolator.apply(chunks_of(clip(2, 20, 30), 2)[0], InterpolateOptions())


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The names of the folders that were loaded from, in order."""
    seen, load = [], networks.load_weights

    def noted(path):
        seen.append(path.parent.name)
        return load(path)

    monkeypatch.setattr(networks, "load_weights", noted)
    return seen


def test_networks_are_kept_up_to_a_number(weights_folder, other_weights, loads) -> None:
    own, other = str(weights_folder), str(other_weights)
    kept = Networks(CPU, 2)
    for source in (own, other, own, other):
        kept.get(source)
    both = list(loads)
    loads.clear()
    single = Networks(CPU, 1)
    for source in (own, own, other, own):
        single.get(source)

    assert both == [weights_folder.name, other_weights.name]
    assert loads == [weights_folder.name, other_weights.name, weights_folder.name]


def test_weights_that_have_changed_are_loaded_again(weights_folder, other_weights, tmp_path, loads) -> None:
    path = tmp_path / "flownet.pkl"
    path.write_bytes((weights_folder / "flownet.pkl").read_bytes())
    kept = Networks(CPU, 2)
    first = kept.get(str(path))
    path.write_bytes((other_weights / "flownet.pkl").read_bytes())
    os.utime(path, ns=(0, 0))

    assert kept.get(str(path)) is not first
    assert len(loads) == 2


def test_weights_that_are_gone_stay_loaded(weights_folder, tmp_path, loads) -> None:
    path = tmp_path / "flownet.pkl"
    path.write_bytes((weights_folder / "flownet.pkl").read_bytes())
    kept = Networks(CPU, 1)
    first = kept.get(str(path))
    path.unlink()

    assert kept.get(str(path)) is first


def test_weights_that_made_room_and_moved_are_found_where_they_are_now(
    weights, weights_folder, other_weights, tmp_path, loads
) -> None:
    (tmp_path / "flownet.pkl").symlink_to(weights_folder / "flownet.pkl")
    kept = Networks(CPU, 1)
    kept.get(str(tmp_path))
    kept.get(str(other_weights))
    (tmp_path / "flownet.pkl").unlink()
    save_file(weights, tmp_path / "flownet.safetensors")
    kept.get(str(tmp_path))

    assert loads == [tmp_path.name, other_weights.name, tmp_path.name]


def test_a_repository_is_asked_once(weights_folder, other_weights, monkeypatch, loads) -> None:
    asked = []

    def download(repository, name, **_):
        asked.append((repository, name))
        return weights_folder / name

    monkeypatch.setattr(weight_file, "hf_hub_download", download)
    kept = Networks(CPU, 1)
    for source in ("a/b", str(other_weights), "a/b"):
        kept.get(source)

    assert asked == [("a/b", "flownet.pkl")]
    assert loads == [weights_folder.name, other_weights.name, weights_folder.name]


def test_what_is_loaded_is_logged_by_the_name_it_was_asked_for(weights_folder, monkeypatch, caplog) -> None:
    monkeypatch.setattr(weight_file, "hf_hub_download", lambda _, name, **__: weights_folder / name)
    with caplog.at_level(logging.INFO, networks.log.name):
        Networks(CPU, 1).get("a/b")

    (record,) = caplog.records
    assert (record.message, record.weights, record.version) == ("network loaded", "a/b", "4.22.lite")


def test_a_card_says_what_requests_may_ask_for(weights_folder) -> None:
    settings = InterpolatorSettings(str(weights_folder), allowed_models=("org/rife", str(weights_folder)))
    card = card_of(settings)

    assert (card.exps, card.flow_scales) == ((1, 2, 3, 4), (0.25, 0.5, 1.0, 2.0, 4.0))
    assert card.models == (str(weights_folder), "org/rife")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_path": " "}, "model_path must name weights"),
        ({"model_path": "https://x/y"}, "model_path must be a local path or a Hugging Face repo id, not a URL"),
        ({"allowed_models": ("a/b", "s3://x")}, "allowed_models must be a local path"),
        ({"memory_mib": 0}, "memory_mib must be from 1 to 16384"),
        ({"memory_mib": 16385}, "memory_mib must be from 1 to 16384"),
        ({"loaded_models": 0}, "loaded_models must be at least 1"),
    ],
)
def test_settings_are_checked(values, said) -> None:
    with pytest.raises(InvalidSettings, match=said):
        InterpolatorSettings(**values)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidSettings, match="no GPU"):
        Interpolator(InterpolatorSettings(device=Device.CUDA))
