"""What cannot be served is refused at start, with the missing thing named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import errors as hub_errors

from vitascope_core.errors import InvalidModel, InvalidSettings
from vitascope_denoiser import checkpoint
from vitascope_denoiser.pipeline import load
from vitascope_denoiser.settings import DEMO_MODEL, EngineSettings, Precision, slug_of
from vitascope_models.catalogue import embedded


@pytest.fixture
def wan(folder_of, tmp_path):
    """A copy of a good folder, to be damaged."""
    return Path(shutil.copytree(folder_of("wan"), tmp_path / "wan"))


def edit(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps(content))


def loading(folder, **settings):
    return load(EngineSettings(str(folder), device="cpu", **settings))


DAMAGES = {
    "model_index.json": lambda f: (f / "model_index.json").unlink(),
    "cannot be read": lambda f: (f / "model_index.json").write_text("{"),
    "JSON object": lambda f: (f / "model_index.json").write_text("[]"),
    "_class_name": lambda f: edit(f / "model_index.json", _class_name=["code", "Pipe"]),
    "NoSuchPipeline": lambda f: edit(f / "model_index.json", _class_name="NoSuchPipeline"),
    "AutoencoderKLWan": lambda f: edit(f / "model_index.json", _class_name="AutoencoderKLWan"),
    "not the name of a component": lambda f: edit(f / "model_index.json", **{"../x": ["diffusers", "X"]}),
    "the folder vae": lambda f: shutil.rmtree(f / "vae"),
    "pickled": lambda f: next((f / "vae").glob("*.safetensors")).rename(f / "vae/diffusion_pytorch_model.bin"),
    "vae": lambda f: next((f / "vae").glob("*.safetensors")).unlink(),
    "vae/config.json|config": lambda f: (f / "vae/config.json").unlink(),
    "cannot be loaded": lambda f: next((f / "transformer").glob("*.safetensors")).write_bytes(b"\0" * 100),
    "code of its own": lambda f: (f / "transformer/extra.py").write_text("raise SystemExit"),
    "shard-2.safetensors is missing": lambda f: (f / "vae/x.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "shard-2.safetensors"}})
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_folder_is_refused(message, wan):
    DAMAGES[message](wan)

    with pytest.raises(InvalidModel, match=message):
        loading(wan)


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder"])
def test_a_missing_weight_is_refused_by_name(component, wan):
    from safetensors.torch import load_file, save_file

    [file] = (wan / component).glob("*.safetensors")
    weights = load_file(file)
    lost = sorted(name for name in weights if weights[name].ndim > 1)[0]
    del weights[lost]
    save_file(weights, file, {"format": "pt"})

    with pytest.raises(InvalidModel, match=f"{component} has no weight"):
        loading(wan)


@pytest.mark.parametrize("path", ["/no/such/folder", "no-such-model", "./a/b", "a/b/c"])
def test_a_path_that_is_neither_folder_nor_id_is_refused(path):
    with pytest.raises(InvalidModel, match="no such folder"):
        checkpoint.find_checkpoint(EngineSettings(path))


def test_a_file_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").touch()

    with pytest.raises(InvalidModel, match="not a folder"):
        checkpoint.find_checkpoint(EngineSettings(str(tmp_path / "weights.safetensors")))


def test_a_hub_id_is_fetched_with_only_the_files_that_are_needed(monkeypatch, folder_of):
    folder = folder_of("wan")
    asked = {}

    def snapshot(model, **options):
        asked.update(options, model=model)
        return str(folder)

    monkeypatch.setattr(checkpoint, "hf_hub_download", lambda *_, **__: str(folder / "model_index.json"))
    monkeypatch.setattr(checkpoint, "snapshot_download", snapshot)

    found = checkpoint.find_checkpoint(EngineSettings("owner/model", revision="v1"))

    assert found.folder == folder
    assert found.pipeline == "WanPipeline"
    assert (asked["model"], asked["revision"]) == ("owner/model", "v1")
    assert "vae/*.safetensors" in asked["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["allow_patterns"])


def test_offline_only_the_cache_is_asked(tmp_path):
    # In a process of its own: the library reads its environment when it is imported.
    code = """
from vitascope_core.errors import InvalidModel
from vitascope_denoiser.checkpoint import find_checkpoint
from vitascope_denoiser.settings import EngineSettings
try:
    find_checkpoint(EngineSettings("owner/model"))
except InvalidModel as error:
    print(error)
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert "owner/model is not in the local cache" in done.stdout


def test_a_failing_download_is_refused(monkeypatch):
    def fail(*_, **__):
        raise hub_errors.EntryNotFoundError("no")

    monkeypatch.setattr(checkpoint, "hf_hub_download", fail)

    with pytest.raises(InvalidModel, match=r"has no model_index.json"):
        checkpoint.find_checkpoint(EngineSettings("owner/model"))


def test_precision_is_chosen_for_each_network(wan):
    pipe = loading(wan, dit_precision="bf16", vae_precision="fp32")

    assert pipe.transformer.dtype == torch.bfloat16
    assert pipe.text_encoder.dtype == torch.bfloat16
    assert pipe.vae.dtype == torch.float32
    assert loading(wan).transformer.dtype == torch.float32


def test_tiling_and_slicing_reach_the_vae(wan):
    pipe = loading(wan, vae_tiling=True, vae_slicing=True)

    assert pipe.vae.use_tiling
    assert pipe.vae.use_slicing


def test_tiling_is_refused_where_the_vae_has_none(wan, monkeypatch):
    from diffusers import AutoencoderKLWan

    def none(self):
        raise NotImplementedError

    monkeypatch.setattr(AutoencoderKLWan, "enable_tiling", none)

    with pytest.raises(InvalidModel, match="AutoencoderKLWan has no tiling"):
        loading(wan, vae_tiling=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(wan):
    with pytest.raises(InvalidSettings, match="no GPU"):
        load(EngineSettings(str(wan), device="cuda"))


@pytest.mark.parametrize(
    "wrong",
    [{"device": "tpu"}, {"dit_precision": "int8"}, {"model_path": " "}, {"pool": "Big Pool"}, {"load_timeout_s": 0}],
)
def test_malformed_settings_are_refused(wrong):
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        EngineSettings(**wrong)


def test_settings_take_plain_text():
    settings = EngineSettings("Org/Model-2.1", vae_precision="bf16")

    assert settings.vae_precision is Precision.BF16
    assert settings.model_name == "Org/Model-2.1"
    assert settings.pool_slug == "org-model-2-1"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("vitascope/demo", "vitascope-demo"),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "wan-ai-wan2-2-ti2v-5b-diffusers"),
        ("a" * 30 + "/" + "b" * 30, "a" * 9 + "-" + "b" * 30),
        ("模型", "model"),
    ],
)
def test_slugs_are_valid_and_keep_the_end(name, slug):
    assert slug_of(name) == slug


def test_the_demo_is_found_without_a_download():
    found = checkpoint.find_checkpoint(EngineSettings(DEMO_MODEL))

    assert found.folder == embedded(DEMO_MODEL)
    assert found.pipeline == "WanPipeline"
