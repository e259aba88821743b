"""Real diffusers classes at tiny size, saved and loaded as a served model is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from vitascope_core.errors import Stopped
from vitascope_core.job import DenoiseSpec, JobKind, JobSpec, OutputSpec

torch.set_num_threads(1)


@dataclass
class ManualControl:
    """A control that a test holds: it records ticks, and stops when told or at a step."""

    stop_at: int | None = None
    steps: list[tuple[int, int]] = field(default_factory=list)
    ticks: int = 0
    stopped: bool = False
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    stepped: threading.Event = field(default_factory=threading.Event)

    def tick(self, step: int | None = None, steps: int | None = None) -> None:
        self.ticks += 1
        if step is not None and steps is not None:
            self.steps.append((step, steps))
            self.stepped.set()
            if step == self.stop_at:
                self.stop()
        if self.stopped:
            raise Stopped("told so")

    def on_stop(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)
        if self.stopped:
            callback()

    def stop(self) -> None:
        self.stopped = True
        for callback in self.callbacks:
            callback()


@pytest.fixture
def control() -> ManualControl:
    return ManualControl()


@pytest.fixture(scope="session")
def new_control() -> type[ManualControl]:
    return ManualControl


@pytest.fixture(scope="session")
def new_spec() -> Callable[..., DenoiseSpec]:
    def make(**changes: Any) -> DenoiseSpec:
        fields = {
            "prompt": "a lighthouse",
            "width": 64,
            "height": 48,
            "num_inference_steps": 3,
            "seeds": (7,),
            "num_frames": 9,
            "guidance_scale": 4.0,
        }
        return DenoiseSpec(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def new_job(new_spec: Callable[..., DenoiseSpec]) -> Callable[..., JobSpec]:
    def make(cuts: tuple[int, ...] = (5, 4), **changes: Any) -> JobSpec:
        spec = new_spec(num_frames=sum(cuts), **changes)
        return JobSpec(
            id="video_1",
            kind=JobKind.VIDEO,
            pool="demo",
            model="vitascope/demo",
            created_ms=0,
            deadline_ms=0,
            denoise=spec,
            cuts=cuts,
            output=OutputSpec("mp4", 50),
            fps=Fraction(16),
        )

    return make


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by name: wan, wan22, flux, qwen, wan_i2v."""
    root = tmp_path_factory.mktemp("models")

    def build(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                _BUILDERS[name]().save_pretrained(folder)
        return folder

    return build


def _wan() -> Any:
    from vitascope_denoiser.demo import build_demo

    return build_demo()


def _wan22() -> Any:
    """Two transformers, and the residual VAE of Wan 2.2 with its patches."""
    from diffusers import AutoencoderKLWan, WanPipeline

    from vitascope_denoiser.demo import _transformer, build_demo

    vae = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        in_channels=12,
        out_channels=12,
        is_residual=True,
        patch_size=2,
        scale_factor_spatial=16,
        scale_factor_temporal=4,
    ).eval()
    components = build_demo().components | {"vae": vae, "transformer_2": _transformer()}
    return WanPipeline(**components, boundary_ratio=0.875)


def _wan_i2v() -> Any:
    from diffusers import WanImageToVideoPipeline

    components = _wan().components
    wanted = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    return WanImageToVideoPipeline(**{name: components[name] for name in wanted})


def _flux() -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    from vitascope_denoiser.demo import byte_tokenizer

    clip = CLIPTextConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    t5 = T5Config(vocab_size=320, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        tokenizer=_short(byte_tokenizer()),
        tokenizer_2=byte_tokenizer(),
        text_encoder=CLIPTextModel(clip).eval(),
        text_encoder_2=T5EncoderModel(t5).eval(),
        vae=AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.06,
            scaling_factor=1.5,
        ).eval(),
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ).eval(),
    )


def _short(tokenizer: Any) -> Any:
    tokenizer.model_max_length = 77
    return tokenizer


def _qwen() -> Any:
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from vitascope_denoiser.demo import byte_tokenizer

    text = {
        "vocab_size": 320,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1_000_000.0},
    }
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        ).eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        ).eval(),
        tokenizer=byte_tokenizer(),
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=64,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
    )


_BUILDERS: dict[str, Callable[[], Any]] = {
    "wan": _wan,
    "wan22": _wan22,
    "wan_i2v": _wan_i2v,
    "flux": _flux,
    "qwen": _qwen,
}


@pytest.fixture(scope="session")
def load_pipe(folder_of: Callable[[str], Path]) -> Callable[..., Any]:
    """Load a tiny model afresh, as the engine does."""
    from vitascope_denoiser.pipeline import load
    from vitascope_denoiser.settings import EngineSettings

    def open_pipe(name: str, **settings: Any) -> Any:
        return load(EngineSettings(str(folder_of(name)), device="cpu", **settings))

    return open_pipe
