"""The card says what the pipeline really takes."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vitascope_core.card import Limits, Mode
from vitascope_core.errors import InvalidModel
from vitascope_denoiser.call import Call
from vitascope_denoiser.card import card_of
from vitascope_denoiser.demo import DEMO_NOTE
from vitascope_denoiser.engine import DiffusersEngine
from vitascope_denoiser.plain import from_plain, to_plain
from vitascope_denoiser.settings import DEMO_MODEL, EngineSettings


@pytest.fixture
def card(load_pipe):
    return lambda name, model="org/tiny": card_of(load_pipe(name), EngineSettings(model))


def test_wan_makes_videos_and_pictures(card):
    wan = card("wan")

    assert wan.modes == (Mode.TEXT_TO_VIDEO, Mode.TEXT_TO_IMAGE)
    assert (wan.id, wan.pool, wan.pipeline) == ("org/tiny", "org-tiny", "WanPipeline")
    assert (wan.width, wan.height) == (Limits(16, 2048, 16), Limits(16, 2048, 16))
    assert wan.num_frames == Limits(1, 1021, 4)
    assert wan.num_inference_steps == Limits(1, 1000)
    assert wan.honours == ("negative_prompt", "guidance_scale", "previews")
    assert (wan.defaults.width, wan.defaults.height, wan.defaults.num_frames) == (832, 480, 81)
    assert (wan.defaults.num_inference_steps, wan.defaults.guidance_scale, wan.defaults.fps) == (50, 5.0, 16)
    assert wan.note == ""
    assert wan.created > 0


def test_wan_22_has_a_second_guidance_and_coarser_latents(card):
    wan = card("wan22")

    assert wan.honours == ("negative_prompt", "guidance_scale", "guidance_scale_2", "previews")
    assert wan.width == Limits(32, 2048, 32)
    assert wan.defaults.guidance_scale_2 is None


def test_flux_makes_pictures_by_distilled_guidance(card):
    flux = card("flux")

    assert flux.modes == (Mode.TEXT_TO_IMAGE,)
    assert flux.num_frames == Limits(1, 1)
    assert flux.width == Limits(16, 4096, 16)
    # Its guidance is an input of the transformer, so that a negative prompt would have no effect.
    assert flux.honours == ("guidance_scale", "previews")
    assert (flux.defaults.width, flux.defaults.height, flux.defaults.num_inference_steps) == (1024, 1024, 28)
    assert flux.defaults.guidance_scale == 3.5


def test_qwen_makes_pictures_by_true_guidance(card):
    qwen = card("qwen")

    assert qwen.modes == (Mode.TEXT_TO_IMAGE,)
    assert qwen.width == Limits(16, 4096, 16)
    assert qwen.honours == ("negative_prompt", "guidance_scale", "previews")
    assert qwen.defaults.guidance_scale == 4.0


def test_the_demo_has_small_defaults_and_says_what_it_is(card):
    demo = card("wan", DEMO_MODEL)

    assert (demo.defaults.width, demo.defaults.height, demo.defaults.num_frames) == (64, 64, 17)
    assert "a red circle moves right" in demo.note
    assert demo.defaults.fps == Fraction(8)


@pytest.mark.parametrize("name", ["wan", "wan22", "flux", "flux_kontext", "qwen", "zimage", "ltx2", "hunyuan15"])
@pytest.mark.filterwarnings("ignore:Guiders are currently an experimental feature")
def test_models_whose_jobs_go_on_say_so(name, card):
    model = card(name)

    assert model.resumable
    assert "begin anew" not in model.note


def test_a_card_says_why_interrupted_jobs_begin_anew(load_pipe):
    from diffusers import EulerDiscreteScheduler

    pipe = load_pipe("wan")
    switched_off = card_of(pipe, EngineSettings("org/tiny", checkpoint_interval=0.0))
    pipe.scheduler = EulerDiscreteScheduler()
    unknown = card_of(pipe, EngineSettings(DEMO_MODEL))

    assert not switched_off.resumable
    assert switched_off.note == "Interrupted jobs begin anew: checkpoints are switched off."
    assert not unknown.resumable
    assert unknown.note.endswith(
        "begin anew: WanPipeline with EulerDiscreteScheduler is not known to go on from a checkpoint."
    )
    assert unknown.note.startswith(DEMO_NOTE)
    assert "previews" not in unknown.honours


def test_a_card_says_that_interrupted_jobs_may_differ_where_the_operator_wants_them_close(load_pipe):
    from diffusers import EulerDiscreteScheduler

    pipe = load_pipe("wan")
    known = card_of(pipe, EngineSettings("org/tiny", resume="close"))
    pipe.scheduler = EulerDiscreteScheduler()
    untried = card_of(pipe, EngineSettings("org/tiny", resume="close"))

    assert (known.resumable, known.note) == (True, "")
    assert untried.resumable
    assert untried.note.startswith("Interrupted jobs go on, perhaps not bit for bit: WanPipeline with Euler")


def test_defaults_keep_their_own_limits(card):
    for name in ("wan", "wan22", "flux", "qwen"):
        model = card(name)
        model.width.check("width", model.defaults.width)
        model.height.check("height", model.defaults.height)
        model.num_frames.check("num_frames", model.defaults.num_frames)


def test_a_served_name_hides_the_folder(load_pipe, folder_of):
    folder = str(folder_of("wan"))

    named = card_of(load_pipe("wan"), EngineSettings(folder, served_model_name="films", pool="gpu-1"))
    unnamed = card_of(load_pipe("wan"), EngineSettings(folder))
    hub = card_of(load_pipe("wan"), EngineSettings("org/tiny", served_model_name="films"))

    assert (named.id, named.aliases, named.pool) == ("films", (), "gpu-1")
    assert (unnamed.id, unnamed.aliases) == ("wan", ())
    assert (hub.id, hub.aliases) == ("films", ("org/tiny",))


def test_a_pipeline_that_needs_a_picture_is_refused(load_pipe):
    pipe = load_pipe("wan_i2v")

    with pytest.raises(InvalidModel, match=r"WanImageToVideoPipeline works on an input image.*not served yet"):
        card_of(pipe, EngineSettings())
    with pytest.raises(InvalidModel, match="not served yet"):
        DiffusersEngine(pipe)


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("FluxKontextPipeline", True),
        ("StableDiffusion3Pipeline", True),
        ("LTXPipeline", True),
        ("FluxImg2ImgPipeline", False),  # its image has a default, and it fails without one
        ("QwenImageEditPipeline", False),
        ("FluxControlNetPipeline", False),
        ("WanVideoToVideoPipeline", False),
        ("StableDiffusionUpscalePipeline", False),
        ("HunyuanVideo15Pipeline", True),  # no step callback, which the engine does not need
        ("MusicLDMPipeline", False),  # neither, and no pictures
        ("DDPMPipeline", False),  # no prompt
    ],
)
def test_pipelines_are_judged_by_what_they_take(name, served):
    import diffusers

    from vitascope_denoiser.card import check_served

    pipe = object.__new__(getattr(diffusers, name))
    pipe.vae = type("Vae", (), {"decode": None})()
    pipe.transformer = type("Net", (), {"config": None})()
    pipe._internal_dict = {}

    if served:
        check_served(pipe, Call(pipe))
    else:
        with pytest.raises(InvalidModel, match=name):
            check_served(pipe, Call(pipe))


def test_a_guidance_that_is_not_given_is_not_passed(load_pipe, new_spec):
    arguments = Call(load_pipe("wan")).arguments(new_spec(guidance_scale=None, guidance_scale_2=3.0))

    assert "guidance_scale" not in arguments
    assert "guidance_scale_2" not in arguments
    assert "negative_prompt" not in arguments


def test_cards_and_specs_cross_the_process_border_unchanged(card, new_spec):
    import json

    for value in (card("wan22"), new_spec(guidance_scale=5.0, seeds=(1, 2**63 - 1))):
        assert from_plain(type(value), json.loads(json.dumps(to_plain(value)))) == value


def test_a_plain_value_of_the_wrong_type_is_refused(new_spec):
    plain = to_plain(new_spec()) | {"width": "64"}

    with pytest.raises(TypeError, match="64"):
        from_plain(type(new_spec()), plain)
