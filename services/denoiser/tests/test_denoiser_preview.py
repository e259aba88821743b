"""Previews show what the latents are about to become, and change nothing of what they become."""

from __future__ import annotations

import logging
from fractions import Fraction

import numpy as np
import pytest
import torch

from vitascope_denoiser.cutting import Cuts
from vitascope_denoiser.engine import DiffusersEngine
from vitascope_denoiser.preview import foretells, predicted, with_latents
from vitascope_denoiser.stepping import Steps

pytestmark = [
    pytest.mark.filterwarnings("ignore:Guiders are currently an experimental feature"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


CASES = [
    ("wan", {"num_frames": 9, "seeds": (3, 4)}),
    ("wan22", {"num_frames": 9, "height": 64}),
    ("flux", {"num_frames": 1, "height": 64, "seeds": (3, 4)}),
    ("qwen", {"num_frames": 1, "height": 64}),
    ("zimage", {"num_frames": 1, "height": 64}),
    ("ltx2", {"num_frames": 9, "height": 64}),
    ("hunyuan15", {"num_frames": 5, "height": 64}),
]


@pytest.mark.parametrize(("name", "changes"), CASES, ids=[name for name, _ in CASES])
def test_a_run_with_previews_ends_like_one_without(name, changes, new_engine, new_spec, new_control, new_attempt):
    engine = new_engine(name)
    spec = new_spec(num_inference_steps=4, **changes)
    [whole] = engine.denoise([spec], [new_control()])
    random = torch.get_rng_state()

    control, attempt = new_control(), new_attempt()
    [latents] = engine.denoise([new_spec(num_inference_steps=4, previews=2, **changes)], [control], [attempt])

    assert torch.equal(latents.z, whole.z)
    assert torch.equal(torch.get_rng_state(), random)
    assert control.steps == [(step, 4) for step in (1, 2, 3, 4)]
    assert list(attempt.previews) == [0, 1]
    for frames in attempt.previews.values():
        assert frames.shape == (1, spec.height, spec.width, 3)
        assert frames.dtype == np.uint8
    assert not np.array_equal(attempt.previews[0], attempt.previews[1])


@pytest.mark.parametrize(
    ("name", "changes"), [("wan", {"num_frames": 9}), ("flux", {"num_frames": 1}), ("qwen", {"num_frames": 1})]
)
def test_the_first_steps_preview_is_the_picture_of_a_run_of_one_step(
    name, changes, new_engine, new_spec, new_control, new_attempt
):
    # Both begin with the same noise at the same sigma, and a single step goes all the way to what the network predicts.
    engine, attempt = new_engine(name), new_attempt()
    changes |= {"height": 64, "seeds": (3, 4)}
    engine.denoise([new_spec(num_inference_steps=2, previews=1, **changes)], [new_control()], [attempt])
    [latents] = engine.denoise([new_spec(num_inference_steps=1, **changes)], [new_control()])
    chunk = next(engine.decode(latents, Cuts((changes["num_frames"],), Fraction(16))))

    difference = np.abs(attempt.previews[0][0].astype(int) - chunk.frames[0])
    assert difference.max() <= 2
    assert chunk.frames[0].std() > 1


def dpm(pipe):
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def euler(pipe):
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)


def heun(pipe):
    from diffusers import FlowMatchHeunDiscreteScheduler

    pipe.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)


@pytest.mark.parametrize("change", [lambda pipe: None, dpm, euler], ids=["unipc", "dpm", "euler"])
def test_the_last_prediction_is_the_result(change, load_pipe):
    pipe = load_pipe("wan")
    change(pipe)
    assert foretells(pipe.scheduler)
    last = []

    def on_step(steps):
        last[:] = [predicted(steps.main), steps.main.output[0]]

    with torch.no_grad(), Steps(pipe, [], on_step):
        pipe("x", height=32, width=32, num_frames=5, num_inference_steps=4, output_type="latent")

    torch.testing.assert_close(*last, atol=1e-3, rtol=1e-3)


def test_a_scheduler_that_tells_no_prediction_makes_no_preview_but_a_line(
    new_engine, new_spec, new_control, new_attempt, caplog
):
    engine, attempt = new_engine("wan", change=heun), new_attempt()
    assert not foretells(engine._pipe.scheduler)
    spec = new_spec(num_frames=5, num_inference_steps=2, previews=1)
    with caplog.at_level(logging.WARNING):
        engine.denoise([spec], [new_control()], [attempt])

    assert attempt.previews == {}
    assert [record.message for record in caplog.records] == ["no preview"]


def broken(*_):
    return torch.zeros(1, 5, 1, 48, 64)


def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("decode", [broken, full])
def test_a_preview_that_cannot_be_decoded_costs_no_job(decode, load_pipe, new_spec, new_control, new_attempt, caplog):
    pipe = load_pipe("wan")
    engine, attempt = DiffusersEngine(pipe), new_attempt()
    handle = pipe.vae.decoder.register_forward_hook(decode)

    engine.denoise([new_spec(num_frames=5, num_inference_steps=2, previews=1)], [new_control()], [attempt])

    handle.remove()
    assert attempt.previews == {}
    assert "no preview" in caplog.text


def test_latents_keep_the_form_of_the_steps_output():
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput

    half = torch.zeros(2, dtype=torch.float16)

    replaced, rest = with_latents((half, "rest"), torch.ones(2))
    named = with_latents(FlowMatchEulerDiscreteSchedulerOutput(prev_sample=half), torch.ones(2))

    assert (replaced.dtype, replaced.tolist(), rest) == (torch.float16, [1.0, 1.0], "rest")
    assert type(named) is FlowMatchEulerDiscreteSchedulerOutput
    assert (named.prev_sample.dtype, named.prev_sample.tolist()) == (torch.float16, [1.0, 1.0])


def test_previews_take_no_random_numbers_from_the_run(load_pipe, new_spec, new_control):
    """Neither where prompts are encoded nor where pixels are made; this scheduler draws from torch's own generator."""

    def latents(previews):
        pipe = load_pipe("wan")
        dpm(pipe)
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, algorithm_type="sde-dpmsolver++")
        for network in (pipe.text_encoder, pipe.vae.decoder):
            network.register_forward_hook(lambda *_: torch.rand(1) and None)
        spec = new_spec(num_frames=5, num_inference_steps=4, previews=previews)
        return DiffusersEngine(pipe).denoise([spec], [new_control()])[0].z

    assert torch.equal(latents(2), latents(0))


def test_previews_after_a_resume_are_those_of_the_later_steps(new_engine, new_spec, new_control, new_attempt):
    spec = new_spec(num_frames=5, num_inference_steps=6, previews=2)
    first = new_attempt()
    new_engine("wan").denoise([spec], [new_control()], [first])
    later = new_attempt(first.saved[2])
    new_engine("wan").denoise([spec], [new_control()], [later])

    assert list(first.previews) == [0, 1]
    assert list(later.previews) == [1]
    assert np.array_equal(first.previews[1], later.previews[1])
