"""A run that is taken up behind any step, in a pipeline loaded afresh, ends with the same latents bit for bit."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitascope_core.errors import Stopped
from vitascope_denoiser.engine import DiffusersEngine
from vitascope_denoiser.families import FAMILIES, why_not_exact
from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.snapshot import dumps, loads
from vitascope_denoiser.stepping import Steps

pytestmark = [
    pytest.mark.filterwarnings("ignore:Guiders are currently an experimental feature"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

STEPS = 4


def usual(pipe):
    """The scheduler that the model comes with: UniPC for Wan, else flow-match Euler."""


def dpm(pipe):
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )


def dpm_sde(pipe):
    """Draws noise from the request's generators in every step."""
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="sde-dpmsolver++"
    )


def flow_match(pipe):
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)


VIDEO = {"num_frames": 9}
IMAGE = {"num_frames": 1, "height": 64}
GRID = [
    ("wan", usual, VIDEO | {"negative_prompt": "fog"}),
    ("wan", usual, VIDEO | {"guidance_scale": 1.0, "num_frames": 5}),
    ("wan", usual, VIDEO | {"seeds": (3, 4, 5), "num_frames": 5}),
    ("wan", dpm, VIDEO),
    ("wan", dpm_sde, VIDEO | {"seeds": (3, 4)}),
    ("wan", flow_match, VIDEO),
    ("wan22", usual, VIDEO | {"guidance_scale_2": 2.0, "height": 64}),
    ("flux", usual, IMAGE | {"seeds": (3, 4)}),
    ("flux_kontext", usual, IMAGE),
    ("qwen", usual, IMAGE | {"guidance_scale": 3.0}),
    ("qwen", usual, IMAGE | {"guidance_scale": 1.0, "seeds": (3, 4)}),
    ("zimage", usual, IMAGE | {"guidance_scale": 4.0, "seeds": (3, 4)}),
    ("zimage", usual, IMAGE | {"guidance_scale": 0.0}),
    ("ltx2", usual, VIDEO | {"height": 64, "guidance_scale": 3.0}),
    ("ltx2", usual, VIDEO | {"height": 64, "guidance_scale": 1.0}),
    ("hunyuan15", usual, VIDEO | {"height": 64, "num_frames": 5, "num_inference_steps": 3}),
]


@pytest.mark.parametrize(
    ("name", "change", "changes"),
    GRID,
    ids=[f"{name}-{change.__name__}-{i}" for i, (name, change, _) in enumerate(GRID)],
)
def test_goes_on_bit_equal_behind_every_step(name, change, changes, new_engine, new_spec, new_control, new_attempt):
    spec = (
        new_spec(num_inference_steps=STEPS, **changes) if "num_inference_steps" not in changes else new_spec(**changes)
    )
    steps = spec.num_inference_steps
    engine = new_engine(name, change=change)
    [whole] = DiffusersEngine(engine._pipe).denoise([spec], [new_control()])
    first = new_attempt()
    [watched] = engine.denoise([spec], [new_control()], [first])
    assert torch.equal(watched.z, whole.z)
    assert list(first.saved) == list(range(1, steps + 1))

    for step in (1, 2, steps):
        control, attempt = new_control(), new_attempt(first.saved[step])
        fresh = new_engine(name, change=change)
        runs = count_forwards(fresh._pipe)
        [latents] = fresh.denoise([spec], [control], [attempt])

        assert attempt.refusals == []
        assert attempt.resumed_at == [step]
        assert control.steps == [(done, steps) for done in range(step, steps + 1)]
        assert torch.equal(latents.z, whole.z)
        assert latents.z.stride() == whole.z.stride()
        assert (len(runs) == 0) == (step == steps)


def test_whatever_a_card_may_promise_is_tried(load_pipe):
    tried = set()
    for name, change in {(name, change) for name, change, _ in GRID} | {(name, usual) for name, _ in WITH_PICTURE}:
        pipe = load_pipe(name)
        change(pipe)
        tried.add((type(pipe).__name__, type(pipe.scheduler).__name__))

    assert tried == {(pipeline, scheduler) for pipeline, schedulers in FAMILIES.items() for scheduler in schedulers}


def count_forwards(pipe):
    """A list that grows by one with each time that a transformer computes."""
    runs = []
    for network in (pipe.transformer, getattr(pipe, "transformer_2", None)):
        if network is not None:
            # In the network's first layer: a hook on the network itself would see the blanks as well.
            next(layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)).register_forward_hook(
                lambda *_: runs.append(1)
            )
    return runs


class Captured(Exception):
    pass


def run_with_picture(pipe, arguments, resume=None):
    """Run a pipeline that takes a picture, which the engine does not serve; return its latents and states."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (7, 8)]
    saved, handed = {}, []

    def on_step(steps):
        snapshot = steps.snapshot({})
        saved[steps.done] = dumps(snapshot)

    def decode(z, *args, **kwargs):
        handed.append(z)
        raise Captured

    pipe.vae.decode = decode
    state = loads(resume, {}, torch.device("cpu")) if resume else None
    with torch.no_grad(), contextlib.suppress(Captured), Steps(pipe, generators, on_step, resume=state):
        pipe(**arguments, generator=generators, num_inference_steps=STEPS, output_type="pt")
    del pipe.vae.decode
    return handed[0], saved


WITH_PICTURE = [
    ("wan_i2v", {"image": 1, "height": 48, "width": 64, "num_frames": 9, "guidance_scale": 4.0}),
    ("flux_kontext", {"image": 2, "height": 64, "width": 64, "max_area": 64 * 64, "_auto_resize": False}),
    ("flux_img2img", {"image": 2, "height": 64, "width": 64, "strength": 0.75}),
]


@pytest.mark.parametrize(("name", "arguments"), WITH_PICTURE, ids=[name for name, _ in WITH_PICTURE])
def test_goes_on_bit_equal_from_a_picture(name, arguments, load_pipe):
    picture = Image.effect_noise((64, arguments["height"]), 60).convert("RGB")
    arguments = arguments | {
        "image": picture if arguments["image"] == 1 else [picture] * 2,
        "prompt": ["a lighthouse"] * (2 if name != "wan_i2v" else 1),
    }
    if name == "wan_i2v":
        arguments["num_videos_per_prompt"] = 2
    whole, saved = run_with_picture(load_pipe(name), dict(arguments))
    steps = 3 if name == "flux_img2img" else STEPS  # it leaves out the beginning of the schedule
    assert list(saved) == list(range(1, steps + 1))

    for step in (1, 2, steps):
        latents, later = run_with_picture(load_pipe(name), dict(arguments), saved[step])

        assert torch.equal(latents, whole)
        assert list(later) == list(range(step, steps + 1))


def test_goes_on_in_another_process(new_engine, new_spec, new_control, new_attempt, folder_of, tmp_path):
    spec = new_spec(num_inference_steps=STEPS, height=64, guidance_scale_2=2.0)
    attempt = new_attempt()
    [whole] = new_engine("wan22").denoise([spec], [new_control()], [attempt])
    (tmp_path / "checkpoint").write_bytes(attempt.saved[2])
    script = tmp_path / "go_on.py"
    script.write_text(f"""
import sys
import torch
from pathlib import Path
from safetensors.torch import save_file
from vitascope_core.job import DenoiseSpec
from vitascope_denoiser.engine import DiffusersEngine, Unkept
from vitascope_denoiser.fingerprint import fingerprint_of
from vitascope_denoiser.pipeline import load
from vitascope_denoiser.settings import EngineSettings

torch.set_num_threads(1)

class Attempt(Unkept):
    checkpoint = Path({str(tmp_path / "checkpoint")!r}).read_bytes()
    def refused(self, why):
        sys.exit(why)

class Control:
    def tick(self, step=None, steps=None):
        pass

settings = EngineSettings({str(folder_of("wan22"))!r}, device="cpu")
pipe = load(settings)
spec = {spec!r}
[latents] = DiffusersEngine(pipe, fingerprint_of(pipe, settings)).denoise([spec], [Control()], [Attempt()])
save_file({{"z": latents.z}}, {str(tmp_path / "latents")!r})
""")

    subprocess.run([sys.executable, script], check=True, timeout=120)

    assert torch.equal(load_file(tmp_path / "latents")["z"], whole.z)


def test_goes_on_twice_in_one_job(new_engine, new_spec, new_control, new_attempt):
    spec = new_spec(num_inference_steps=6, seeds=(1, 2), num_frames=5)
    [whole] = new_engine("wan").denoise([spec], [new_control()])

    checkpoint = None
    for stop_at in (2, 5):
        attempt = new_attempt(checkpoint)
        with pytest.raises(Stopped):
            new_engine("wan").denoise([spec], [new_control(stop_at=stop_at)], [attempt])
        assert max(attempt.saved) == stop_at
        checkpoint = attempt.saved[stop_at]
    last = new_attempt(checkpoint)
    [latents] = new_engine("wan").denoise([spec], [new_control()], [last])

    assert last.resumed_at == [5]
    assert torch.equal(latents.z, whole.z)


def test_seconds_add_up_over_attempts(new_engine, new_spec, new_control, new_attempt):
    spec = new_spec(num_inference_steps=3, num_frames=5)
    engine, first = new_engine("wan"), new_attempt()
    engine.denoise([spec], [new_control()], [first])
    second = new_attempt(first.saved[2])
    engine.denoise([spec], [new_control()], [second])

    seconds = [first.snapshots[step].seconds for step in (1, 2, 3)]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert second.snapshots[3].seconds > seconds[1]


def test_an_engine_serves_others_after_a_resume(new_engine, new_spec, new_control, new_attempt):
    engine, spec = new_engine("flux"), new_spec(num_frames=1, height=64, num_inference_steps=3)
    attempt = new_attempt()
    [whole] = engine.denoise([spec], [new_control()], [attempt])

    engine.denoise([spec], [new_control()], [new_attempt(attempt.saved[2])])

    [again] = engine.denoise([spec], [new_control()])
    assert torch.equal(again.z, whole.z)


@pytest.mark.parametrize(
    ("spec_changes", "name", "change", "why"),
    [
        ({"prompt": "a lighthouse at night"}, "wan", usual, "another spec"),
        ({"seeds": (8,)}, "wan", usual, "another spec"),
        ({}, "wan22", usual, "another model"),
        ({}, "wan", dpm, "number of schedulers|no attribute|another schedule"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_the_job_begins_anew(
    spec_changes, name, change, why, new_engine, new_spec, new_control, new_attempt
):
    first = new_attempt()
    new_engine("wan").denoise([new_spec(height=64)], [new_control()], [first])
    spec = new_spec(height=64, **spec_changes)
    [whole] = new_engine(name, change=change).denoise([spec], [new_control()])

    control, attempt = new_control(), new_attempt(first.saved[2])
    [latents] = new_engine(name, change=change).denoise([spec], [control], [attempt])

    assert attempt.resumed_at == []
    [refusal] = attempt.refusals
    assert any(reason in refusal for reason in why.split("|"))
    assert control.steps == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(latents.z, whole.z)


def test_a_damaged_checkpoint_is_refused_and_the_job_begins_anew(new_engine, new_spec, new_control, new_attempt):
    engine, first = new_engine("wan"), new_attempt()
    [whole] = engine.denoise([new_spec()], [new_control()], [first])

    attempt = new_attempt(first.saved[2][:-1])
    [latents] = engine.denoise([new_spec()], [new_control()], [attempt])

    assert "damaged" in attempt.refusals[0]
    assert torch.equal(latents.z, whole.z)


def test_an_engine_without_checkpoints_makes_and_takes_none(load_pipe, new_engine, new_spec, new_control, new_attempt):
    first = new_attempt()
    new_engine("wan").denoise([new_spec()], [new_control()], [first])

    attempt = new_attempt(first.saved[2])
    DiffusersEngine(load_pipe("wan")).denoise([new_spec()], [new_control()], [attempt])

    assert attempt.refusals == ["this model does not go on from checkpoints"]
    assert attempt.saved == {}
    assert attempt.last == 3


def test_a_stop_while_going_on_is_a_stop(new_engine, new_spec, new_control, new_attempt):
    engine, first = new_engine("wan"), new_attempt()
    engine.denoise([new_spec()], [new_control()], [first])

    attempt = new_attempt(first.saved[2])
    with pytest.raises(Stopped):
        engine.denoise([new_spec()], [new_control(stop_at=2)], [attempt])

    assert attempt.refusals == []


def test_only_what_was_tried_is_promised(load_pipe):
    from diffusers import EulerDiscreteScheduler

    pipe = load_pipe("wan")
    assert why_not_exact(pipe) is None

    pipe.scheduler = EulerDiscreteScheduler()
    assert "EulerDiscreteScheduler" in why_not_exact(pipe)


def test_states_that_cannot_be_used_raise_by_name(new_engine, new_spec, new_control, new_attempt):
    first = new_attempt()
    new_engine("wan").denoise([new_spec()], [new_control()], [first])

    with pytest.raises(NotResumable, match=r"another torch: '.+', here '0'"):
        loads(first.saved[1], first.snapshots[1].fingerprint | {"torch": "0"}, torch.device("cpu"))
