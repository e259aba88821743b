"""Equal conditions have equal fingerprints on every replica; what changes the numbers changes one."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitascope_core.job import DenoiseSpec
from vitascope_denoiser.fingerprint import fingerprint_of, for_job, model_digest
from vitascope_denoiser.pipeline import load
from vitascope_denoiser.settings import EngineSettings


@pytest.fixture
def folder(folder_of, tmp_path):
    """A copy of a tiny model that a test may change."""
    return shutil.copytree(folder_of("wan"), tmp_path / "model")


def test_copies_of_a_model_are_the_same_model(folder_of, folder):
    assert model_digest(folder) == model_digest(folder_of("wan"))
    assert model_digest(folder) != model_digest(folder_of("wan22"))


def test_what_no_component_holds_is_no_part_of_the_model(folder):
    before = model_digest(folder)

    (folder / "README.md").write_text("hello")
    (folder / "samples").mkdir()

    assert model_digest(folder) == before


def test_a_changed_setting_is_another_model(folder):
    before = model_digest(folder)
    config = folder / "scheduler" / "scheduler_config.json"

    config.write_text(config.read_text().replace('"flow_shift": 3.0', '"flow_shift": 5.0'))

    assert model_digest(folder) != before


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
def test_trained_weights_of_the_same_shape_are_another_model(component, folder):
    before = model_digest(folder)
    [path] = (folder / component).glob("*.safetensors")
    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())

    weights[name] = weights[name] * 1.001
    save_file(weights, path, {"format": "pt"})

    assert model_digest(folder) != before


def test_loads_of_one_folder_agree_and_settings_count(folder):
    settings = EngineSettings(str(folder), device="cpu")
    prints = {
        name: fingerprint_of(load(changed), changed)
        for name, changed in {
            "first": settings,
            "second": settings,
            "bf16": replace(settings, dit_precision="bf16"),
            "tiling": replace(settings, vae_tiling=True),
            "interval": replace(settings, checkpoint_interval=3.0),
            "close": replace(settings, resume="close"),
        }.items()
    }

    assert prints["first"] == prints["second"] == prints["interval"]
    assert differing(prints["first"], prints["bf16"]) == {"precision"}
    assert differing(prints["first"], prints["tiling"]) == {"vae"}
    assert prints["first"]["torch"] == torch.__version__
    assert prints["first"]["device"] == f"cpu with {torch.get_num_threads()} threads"
    assert prints["close"]["device"] == "cpu"


def differing(one, other):
    return {name for name in one | other if one.get(name) != other.get(name)}


OTHER = {
    "prompt": "another",
    "width": 128,
    "height": 128,
    "num_inference_steps": 9,
    "seeds": (7, 8),
    "num_frames": 5,
    "negative_prompt": "fog",
    "guidance_scale": 2.0,
    "guidance_scale_2": 2.0,
    "previews": 3,
}


def test_every_field_of_a_spec_counts(new_spec):
    spec = new_spec()
    before = for_job({"torch": "2"}, spec)

    assert before == for_job({"torch": "2"}, new_spec())
    assert {field.name for field in fields(DenoiseSpec)} <= set(OTHER)
    for name, value in OTHER.items():
        assert for_job({"torch": "2"}, replace(spec, **{name: value})) != before
