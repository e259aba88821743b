"""The video model's training, some steps of it: what learns, what stays, what is written."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from tools.train import autoencoder, evaluation, lora, packing, transformer
from tools.train.text import LONGEST, embed
from tools.train.training import Recipe, Training

# Training mixes precisions, for which PyTorch has no fused kernel.
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(1)
    return autoencoder.network().eval()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An autoencoder after one step, with its latents' statistics."""
    return autoencoder.train(tmp_path_factory.mktemp("vae"), recipe=Recipe(steps=1, rate=1e-4))


@pytest.fixture(scope="module")
def writer() -> transformer.Writer:
    torch.manual_seed(1)
    return transformer.Writer().eval()


@pytest.fixture(scope="module")
def clips() -> transformer.Clips:
    torch.manual_seed(2)
    return transformer.Clips(torch.randn(8, 16, 5, 8, 8).half(), autoencoder.random_scenes(8, Random(1)))


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


def changed(network: torch.nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, weight in network.named_parameters() if not torch.equal(weight, before[name])}


def test_one_token_stands_for_all_the_padding_that_pipelines_add(writer: transformer.Writer) -> None:
    latents, timestep = torch.randn(2, 16, 5, 8, 8), torch.full((2, 80), 500.0)
    short = embed(writer.tokenizer, writer.text_encoder, ["a red circle moves right on a blue background", ""])
    long = torch.nn.functional.pad(short, (0, 0, 0, 512 - LONGEST))
    network = writer.transformer

    with torch.no_grad():
        as_served = network(latents, timestep, long, return_dict=False)[0]
        for block in network.blocks:
            block.attn2.set_processor(transformer.PaddedCrossAttention())
        as_trained = network(latents, timestep, short, return_dict=False)[0]
        for block in network.blocks:
            block.attn2.set_processor(WanAttnProcessor())

    assert torch.allclose(as_trained, as_served, atol=1e-5)


def test_the_latents_that_are_learned_from_are_normal(learned: Any, tmp_path: Any) -> None:
    scenes = autoencoder.random_scenes(8, Random(3))

    latents = transformer.encoded_clips(tmp_path / "latents.pt", learned, scenes).latents.float()

    assert latents.shape == (8, 16, 5, 8, 8)
    assert latents.mean().abs() < 0.3
    assert 0.7 < latents.std() < 1.3


def test_refining_the_decoder_leaves_the_latents_as_they_are(vae: Any, tmp_path: Any) -> None:
    before = weights_of(vae)

    refined = autoencoder.refine(tmp_path, vae, Recipe(steps=1, rate=1e-3))

    assert changed(vae, before) == set()
    assert changed(refined, before)
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed(refined, before))


def test_a_training_step_teaches_the_transformer_and_the_text_encoder(clips: transformer.Clips, tmp_path: Any) -> None:
    torch.manual_seed(3)
    writer = transformer.Writer()
    before = weights_of(writer)

    transformer.learn(Training(tmp_path / "t.pt", writer, Recipe(steps=1, rate=1e-3, warm_up=1)), clips)

    parts = {name.split(".")[0] for name in changed(writer, before)}
    assert parts == {"transformer", "text_encoder"}


def test_a_given_first_frame_counts_for_nothing_in_the_loss(
    writer: transformer.Writer, clips: transformer.Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformer, "_FROM_FRAME", 1.0)
    monkeypatch.setattr(transformer, "_SINGLE", 0.0)
    seen = []
    inner = writer.transformer.forward

    def spy(latents: torch.Tensor, timestep: torch.Tensor, *more: Any, **named: Any) -> Any:
        seen.append((latents, timestep))
        return inner(latents, timestep, *more, **named)

    monkeypatch.setattr(writer.transformer, "forward", spy)
    torch.manual_seed(1)
    with torch.no_grad():
        transformer.flow_loss(writer, clips, Random(1))
    ((latents, timestep),) = seen

    assert not timestep[:, :16].any()
    assert (timestep[:, 16:] > 0).all()
    assert all((first == clips.latents[:, :, 0].float()).flatten(1).all(1).any() for first in latents[:, :, 0])


def test_a_training_goes_on_from_packed_weights(vae: Any, writer: transformer.Writer, tmp_path: Any) -> None:
    packing.pack_pipeline(vae, writer, tmp_path)

    assert changed(transformer._first(tmp_path), weights_of(copy.deepcopy(writer).half().float())) == set()


def test_what_is_packed_does_not_tell_where_it_came_from(vae: Any, writer: transformer.Writer, tmp_path: Any) -> None:
    loaded = copy.deepcopy(vae)
    loaded.register_to_config(_name_or_path="/somewhere")

    packing.pack_pipeline(loaded, writer, tmp_path)

    assert [file.name for file in tmp_path.glob("**/*.json") if "/somewhere" in file.read_text()] == []


def test_channels_that_vary_little_weigh_little(learned: Any) -> None:
    assert len(set(learned.config.latents_std)) == 1


def test_an_adapter_is_written_as_diffusers_reads_it(
    vae: Any, writer: transformer.Writer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "CLIPS", 8)
    before = weights_of(writer)
    adapted = lora.train(tmp_path, vae, writer, Recipe(steps=2, rate=1e-2, warm_up=1))
    lora.export(adapted, tmp_path / "lora")
    packing.pack_pipeline(vae, writer, tmp_path / "pipe")
    pipe: Any = evaluation.opened(tmp_path / "pipe")

    pipe.load_lora_weights(tmp_path / "lora")

    assert changed(writer, before) == set()
    assert len(pipe.get_list_adapters()["transformer"]) == 1
    assert isinstance(pipe, WanPipeline)


def test_the_packed_pipeline_opens_and_makes_a_clip(vae: Any, writer: transformer.Writer, tmp_path: Any) -> None:
    packing.pack_pipeline(vae, writer, tmp_path)
    pipe = evaluation.opened(tmp_path)

    frames = pipe("a red circle", height=64, width=64, num_frames=5, num_inference_steps=1, output_type="pt").frames

    assert frames.shape == (1, 5, 3, 64, 64)
    assert isinstance(pipe.vae, AutoencoderKLWan)
    assert pipe.config.expand_timesteps
