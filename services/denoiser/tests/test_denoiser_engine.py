"""The engine makes what the stock pipeline makes, reports every step, stops within one, and stays clean."""

from __future__ import annotations

import json
from fractions import Fraction

import diffusers
import numpy as np
import pytest
import torch

from vitascope_core.errors import DeviceOutOfMemory, Final, Stopped
from vitascope_denoiser.cutting import Cuts
from vitascope_denoiser.engine import DiffusersEngine


def frames_of(engine, latents, num_frames, fps=Fraction(16)):
    """All frames of every output, (outputs, T, H, W, C)."""
    chunks = list(engine.decode(latents, Cuts((num_frames,), fps)))
    return np.stack([chunk.frames for chunk in chunks])


def run(engine, spec, control):
    [latents] = engine.denoise([spec], [control])
    return frames_of(engine, latents, spec.num_frames)


def stock_frames(folder, spec, **arguments):
    """What the unchanged pipeline makes of a spec, as pictures."""
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipe = getattr(diffusers, name).from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    result = pipe(
        prompt=[spec.prompt] * len(spec.seeds),
        height=spec.height,
        width=spec.width,
        num_inference_steps=spec.num_inference_steps,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in spec.seeds],
        output_type="pil",
        **arguments,
    )
    videos = result.frames if hasattr(result, "frames") else [[image] for image in result.images]
    return np.stack([np.stack([np.asarray(picture) for picture in video]) for video in videos])


@pytest.mark.filterwarnings("ignore:Guiders are currently an experimental feature")
@pytest.mark.parametrize(
    ("name", "changes", "arguments"),
    [
        ("wan", {"negative_prompt": "fog"}, {"num_frames": 9, "guidance_scale": 4.0, "negative_prompt": ["fog"]}),
        ("wan", {"num_frames": 1, "guidance_scale": None, "num_inference_steps": 1}, {"num_frames": 1}),
        (
            "wan22",
            {"guidance_scale_2": 2.0, "num_inference_steps": 5, "height": 64},
            {"num_frames": 9, "guidance_scale": 4.0, "guidance_scale_2": 2.0},
        ),
        ("flux", {"num_frames": 1, "guidance_scale": 3.0}, {"guidance_scale": 3.0}),
        ("qwen", {"num_frames": 1, "guidance_scale": 3.0}, {"true_cfg_scale": 3.0, "negative_prompt": [""]}),
        ("zimage", {"num_frames": 1, "guidance_scale": 3.0}, {"guidance_scale": 3.0, "negative_prompt": [""]}),
        ("flux_kontext", {"num_frames": 1, "guidance_scale": 3.0}, {"guidance_scale": 3.0, "max_area": 64 * 48}),
        ("hunyuan15", {"num_frames": 5}, {"num_frames": 5}),
    ],
)
def test_makes_the_pixels_of_the_stock_pipeline(name, changes, arguments, load_pipe, folder_of, new_spec, control):
    spec = new_spec(**changes)

    frames = run(DiffusersEngine(load_pipe(name)), spec, control)

    assert frames.shape == (1, spec.num_frames, spec.height, spec.width, 3)
    assert frames.std() > 1
    assert np.array_equal(frames, stock_frames(folder_of(name), spec, **arguments))


@pytest.mark.parametrize(("name", "frames"), [("wan", 5), ("flux", 1)])
def test_an_output_does_not_depend_on_its_batch(name, frames, load_pipe, new_spec, new_control):
    engine = DiffusersEngine(load_pipe(name))

    both = run(engine, new_spec(seeds=(1, 2), num_frames=frames), new_control())
    alone = [run(engine, new_spec(seeds=(seed,), num_frames=frames), new_control())[0] for seed in (1, 2)]

    # The networks round differently for a batch of two: at most one level of 255, and that seldom.
    assert np.abs(both.astype(int) - np.stack(alone)).max() <= 1
    assert not np.array_equal(both[0], both[1])


def test_a_seed_makes_the_same_again(load_pipe, new_spec, new_control):
    engine = DiffusersEngine(load_pipe("wan"))

    first, other, again = (run(engine, new_spec(seeds=(seed,)), new_control()) for seed in (5, 6, 5))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_step_is_reported(load_pipe, new_spec, control):
    DiffusersEngine(load_pipe("wan")).denoise([new_spec(num_inference_steps=4)], [control])

    assert control.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_specs_are_paired_with_their_controls(load_pipe, new_spec, new_control):
    controls = [new_control(), new_control()]

    made = DiffusersEngine(load_pipe("wan")).denoise(
        [new_spec(num_inference_steps=1), new_spec(num_inference_steps=2, seeds=(1, 2))], controls
    )

    assert [latents.outputs for latents in made] == [1, 2]
    assert [control.steps for control in controls] == [[(1, 1)], [(1, 2), (2, 2)]]


@pytest.mark.parametrize("name", ["wan", "flux"])
def test_a_stop_ends_within_one_step_and_leaves_nothing_behind(name, load_pipe, new_spec, new_control):
    pipe = load_pipe(name)
    engine = DiffusersEngine(pipe)
    spec = new_spec(num_frames=5 if name == "wan" else 1, num_inference_steps=6)
    calls = []
    pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    stopping = new_control(stop_at=2)

    with pytest.raises(Stopped):
        engine.denoise([new_spec(num_frames=spec.num_frames, num_inference_steps=9, prompt="another")], [stopping])

    assert stopping.steps == [(1, 9), (2, 9)]
    assert len(calls) <= 4  # two steps, guidance included
    assert np.array_equal(run(engine, spec, new_control()), run(DiffusersEngine(load_pipe(name)), spec, new_control()))


def test_a_stop_before_the_first_step_runs_no_network(load_pipe, new_spec, control):
    pipe = load_pipe("wan")
    calls = []
    pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    control.stop()

    with pytest.raises(Stopped):
        DiffusersEngine(pipe).denoise([new_spec()], [control])

    assert calls == []


def test_latents_that_are_no_numbers_end_the_job(load_pipe, new_spec, new_control):
    pipe = load_pipe("wan")
    engine = DiffusersEngine(pipe)
    broken = pipe.transformer.register_forward_hook(lambda _m, _a, output: (output[0] * float("nan"),))

    with pytest.raises(Final, match="not numbers") as raised:
        engine.denoise([new_spec()], [new_control()])

    assert raised.value.code == "generation_failed"
    broken.remove()
    assert run(engine, new_spec(), new_control()).std() > 1


def test_lack_of_device_memory_is_named_so(load_pipe, new_spec, new_control):
    pipe = load_pipe("wan")
    engine = DiffusersEngine(pipe)
    [latents] = engine.denoise([new_spec()], [new_control()])

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipe.transformer.register_forward_hook(full)
    pipe.vae.decoder.register_forward_hook(full)

    with pytest.raises(DeviceOutOfMemory, match="denoising"):
        engine.denoise([new_spec()], [new_control()])
    with pytest.raises(DeviceOutOfMemory, match="decoding"):
        list(engine.decode(latents, Cuts((9,), Fraction(16))))


def test_frames_that_are_not_as_many_as_the_cuts_end_the_job(load_pipe, new_spec, control):
    engine = DiffusersEngine(load_pipe("wan"))
    [latents] = engine.denoise([new_spec(num_frames=5)], [control])

    for wrong in (4, 6):
        with pytest.raises(Final, match="the model made"):
            list(engine.decode(latents, Cuts((wrong,), Fraction(16))))
