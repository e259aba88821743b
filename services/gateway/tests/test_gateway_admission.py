"""Where a request meets a card: defaults, arithmetic and the choice of a pool."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from vitascope_core.card import Limits
from vitascope_core.errors import InvalidRequest, ModelNotFound, UnsupportedField
from vitascope_core.job import JobKind, OutputSpec
from vitascope_core.plan import InterpolateOptions, UpscaleOptions
from vitascope_gateway.admission import admit_image, admit_video
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.fields import Fields
from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.clock import ManualClock


@pytest.fixture
def video(video_card, image_card, transforms):
    def admit(*, cards=(video_card, image_card), stages=transforms, form=False, **values):
        fields = Fields({"prompt": "a cat", **values}, form=form)
        settings = GatewaySettings(deadline_s=100, result_ttl_s=200)
        return admit_video(fields, Catalogue(tuple(cards), tuple(stages)), "ann", ManualClock(5000), settings)

    return admit


@pytest.fixture
def image(video_card, image_card, transforms):
    def admit(*, cards=(video_card, image_card), stages=transforms, **values):
        fields = Fields({"prompt": "a cat", **values})
        return admit_image(fields, Catalogue(tuple(cards), tuple(stages)), "", ManualClock(), GatewaySettings())

    return admit


def test_a_silent_request_gets_the_cards_defaults(video) -> None:
    spec = video()

    assert (spec.kind, spec.pool, spec.model, spec.owner) == (JobKind.VIDEO, "clips", "org/clips", "ann")
    assert (spec.created_ms, spec.deadline_ms, spec.result_ttl_s) == (5_000_000, 5_100_000, 200)
    d = spec.denoise
    assert (d.width, d.height, d.num_frames, d.num_inference_steps) == (64, 48, 9, 4)
    assert (d.guidance_scale, d.guidance_scale_2, d.negative_prompt) == (5.0, None, "blurry")
    assert (spec.fps, spec.cuts, spec.output) == (16, (9,), OutputSpec("mp4", 50))
    assert spec.plan.transforms == ()


def test_what_is_said_wins(video) -> None:
    spec = video(
        negative_prompt="", num_inference_steps=7, guidance_scale=2, fps=23.976, num_frames=13, output_quality="high"
    )

    assert (spec.denoise.negative_prompt, spec.denoise.num_inference_steps, spec.denoise.guidance_scale) == ("", 7, 2.0)
    assert (spec.fps, spec.denoise.num_frames, spec.output.compression) == (Fraction(2997, 125), 13, 90)


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"size": "128x96"}, (128, 96)),
        ({"size": "128X96", "width": 128}, (128, 96)),
        ({"width": 128, "height": 96}, (128, 96)),
        ({"width": 128}, (128, 48)),
        ({"size": "auto"}, (64, 48)),
        ({"size": "auto", "height": 96}, (64, 96)),
    ],
)
def test_size_comes_from_size_else_width_and_height(video, values, size) -> None:
    denoise = video(**values).denoise

    assert (denoise.width, denoise.height) == size


@pytest.mark.parametrize(
    ("values", "frames"),
    [
        ({"seconds": "1"}, 17),  # 16 frames; the grid has 13 and 17
        ({"seconds": 1}, 17),
        ({"seconds": "5"}, 81),
        ({"seconds": "5.1"}, 81),
        ({"seconds": 0.25}, 5),
        ({"seconds": 0.6875}, 13),  # 11, halfway between 9 and 13
        ({"seconds": "2", "fps": 8}, 17),
        ({"seconds": "5", "num_frames": 9}, 9),
        ({"num_frames": 13.0}, 13),
        ({}, 9),
    ],
)
def test_seconds_become_the_nearest_allowed_number_of_frames(video, values, frames) -> None:
    assert video(**values).denoise.num_frames == frames


@pytest.mark.parametrize("seconds", [5.2, 0.1, 1e300])
def test_seconds_beyond_the_model_are_refused(video, seconds) -> None:
    with pytest.raises(InvalidRequest, match=r"from 0\.312 to 5\.06 at 16"):
        video(seconds=seconds)


def test_seeds_count_up_from_the_one_that_is_said(video) -> None:
    assert video(seed=7, n=3).denoise.seeds == (7, 8, 9)
    assert video(seed=[5, 1], n=2).denoise.seeds == (5, 1)
    assert video(seed=[5, 1]).denoise.seeds == (5, 1)
    assert video(seed=0).denoise.seeds == (0,)


def test_seeds_are_drawn_when_none_is_said(video) -> None:
    drawn = {video().denoise.seeds for _ in range(20)}

    assert len(drawn) > 15
    assert all(0 <= seed < 2**32 for (seed,) in drawn)


def test_chunks_are_cut_by_size_or_as_asked(video, video_card) -> None:
    large = replace(video_card, width=Limits(16, 4096, 16), height=Limits(16, 4096, 16), max_pixels=2**40)

    assert video(num_frames=81).cuts == (81,)
    assert sum(video(cards=[large], num_frames=81, size="1280x720").cuts) == 81
    assert max(video(cards=[large], num_frames=81, size="1280x720").cuts) <= 8
    assert video(num_frames=13, chunk_frames=5).cuts == (5, 5, 3)
    assert video(num_frames=13, chunk_frames=1).cuts == (1,) * 13
    assert video(num_frames=13, chunk_frames=13).cuts == (13,)


def test_ids_are_fresh_and_say_when(video, image) -> None:
    assert video().id.startswith("video_")
    assert image().id.startswith("img_")
    assert video().id != video().id


def test_a_plan_has_what_was_switched_on(video) -> None:
    spec = video(
        enable_frame_interpolation=True,
        frame_interpolation_exp=2,
        frame_interpolation_scale=0.5,
        enable_upscaling=True,
        upscaling_scale=2,
    )

    assert (spec.plan.interpolate, spec.plan.upscale) == (InterpolateOptions(2, 0.5), UpscaleOptions(2))
    assert (spec.out_frames, spec.out_fps) == (33, 64)
    assert video(enable_frame_interpolation=True).plan.interpolate == InterpolateOptions(1, 1.0)
    assert video(enable_upscaling=True).plan.upscale == UpscaleOptions(4)


@pytest.mark.parametrize("path", ["org/rife", "/weights/rife"])
def test_a_request_may_name_weights_that_the_card_offers(video, path) -> None:
    spec = video(enable_frame_interpolation=True, frame_interpolation_model_path=path)

    assert spec.plan.interpolate == InterpolateOptions(1, 1.0, path)


def test_weights_that_the_card_does_not_offer_are_refused_with_those_it_does(video) -> None:
    with pytest.raises(InvalidRequest, match=r"must be one of org/rife, /weights/rife, got 'org/other'"):
        video(enable_frame_interpolation=True, frame_interpolation_model_path="org/other")


@pytest.mark.parametrize("field", ["frame_interpolation_model_path", "upscaling_model_path"])
def test_weights_are_never_fetched_from_a_url(video, field) -> None:
    with pytest.raises(InvalidRequest, match="not a URL"):
        video(enable_frame_interpolation=True, enable_upscaling=True, **{field: "https://host/weights"})


def test_an_upscaler_without_the_usual_scale_uses_its_largest(video, transforms) -> None:
    stages = (transforms[0], replace(transforms[1], scales=(2, 3)))

    assert video(enable_upscaling=True, stages=stages).plan.upscale == UpscaleOptions(3)


@pytest.mark.parametrize("scale", [1.5, 3, 0, -4])
def test_a_scale_that_the_card_does_not_offer_is_refused(video, scale) -> None:
    with pytest.raises(InvalidRequest, match="upscaling_scale must be one of 2, 4, got"):
        video(enable_upscaling=True, upscaling_scale=scale)


def test_a_card_may_offer_a_fraction(video, transforms) -> None:
    stages = (replace(transforms[1], scales=(1.5,)),)
    plan = video(enable_upscaling=True, upscaling_scale=1.5, stages=stages).plan

    assert (plan.upscale, plan.enlarged(65)) == (UpscaleOptions(1.5), 97)


def test_frames_that_the_upscaler_has_no_memory_for_are_refused(video, image, transforms) -> None:
    upscaler = replace(transforms[1], models=("org/own", "org/other"), max_pixels=(64 * 64, 64 * 48))
    large = {"stages": (upscaler,), "size": "64x64", "enable_upscaling": True}
    said = "size must be at most 3072 pixels in all, .* at upscaling_scale 4, got '64x64'"

    for admit in (video, image):
        with pytest.raises(InvalidRequest, match=said):
            admit(**large, upscaling_scale=4)
        with pytest.raises(InvalidRequest, match=said):
            admit(**large, upscaling_model_path="org/own")
        assert admit(**large, upscaling_scale=2).plan.upscale == UpscaleOptions(2)
        assert admit(**{**large, "enable_upscaling": False}).plan.upscale is None
        # What other weights need, the upscaler finds out.
        assert admit(**large, upscaling_model_path="org/other").plan.upscale == UpscaleOptions(4, "org/other")


def test_options_of_a_transform_that_is_switched_off_are_ignored(video) -> None:
    spec = video(enable_upscaling=False, upscaling_scale=2, upscaling_model_path="x", enable_frame_interpolation=False)

    assert spec.plan.transforms == ()


def test_forms_are_read_from_text(video) -> None:
    spec = video(form=True, num_frames="13", guidance_scale="2.5", enable_upscaling="true", seed="7", n="2", width="")

    assert (spec.denoise.num_frames, spec.denoise.guidance_scale, spec.denoise.seeds) == (13, 2.5, (7, 8))
    assert spec.plan.upscale == UpscaleOptions(4)


def test_what_only_other_servers_understand_is_ignored(video, image) -> None:
    video(user="u", metadata={"a": 1}, quality="standard", stream=False, enable_teacache=False, task_type="T2V")
    image(style="vivid", moderation="low", quality="hd", partial_images=0, background="opaque", num_frames=1, user="u")


def test_the_pool_is_chosen_by_name_or_by_being_the_only_one(video, image, video_card, image_card) -> None:
    other = replace(video_card, pool="more", id="org/more", aliases=("sora-2-pro",))
    cards = (video_card, image_card, other)

    assert video(cards=cards, model="sora-2").pool == "clips"
    assert video(cards=cards, model="sora-2").model == "sora-2"
    assert video(cards=cards, model="org/more").pool == "more"
    assert image(cards=cards).pool == "stills"
    with pytest.raises(InvalidRequest, match=r"org/clips, org/more"):
        video(cards=cards)
    with pytest.raises(ModelNotFound, match=r"org/clips, stills, org/more"):
        video(cards=cards, model="ORG/more")
    with pytest.raises(InvalidRequest, match=r"served: none yet"):
        video(cards=())


def test_an_id_wins_over_an_alias(video, video_card) -> None:
    shadow = replace(video_card, pool="a-shadow", id="org/other", aliases=("org/clips",))

    assert video(cards=(shadow, video_card), model="org/clips").pool == "clips"


@pytest.mark.parametrize(
    ("values", "output"),
    [
        ({}, OutputSpec("png", 75)),
        ({"output_format": "jpg"}, OutputSpec("jpeg", 75)),
        ({"output_format": "webp", "output_quality": "maximum"}, OutputSpec("webp", 100)),
        ({"output_format": "jpeg", "output_compression": 10, "output_quality": "high"}, OutputSpec("jpeg", 10)),
        ({"output_compression": 100}, OutputSpec("png", 100)),
        ({"output_quality": "low"}, OutputSpec("png", 35)),
    ],
)
def test_images_are_encoded_as_asked(image, values, output) -> None:
    assert image(**values).output == output


def test_images_have_one_frame(image) -> None:
    spec = image(n=10)

    assert (spec.denoise.num_frames, spec.cuts, spec.outputs) == (1, (1,), 10)


def test_a_finished_side_that_the_format_cannot_hold_is_refused(image, image_card) -> None:
    wide = replace(image_card, width=Limits(16, 8192, 16))

    with pytest.raises(InvalidRequest, match="16383 on a side"):
        image(cards=[wide], width=8192, output_format="webp", enable_upscaling=True)
    assert image(cards=[wide], width=8192, output_format="png", enable_upscaling=True).denoise.width == 8192


def test_a_transform_that_is_not_installed_says_so(video) -> None:
    with pytest.raises(UnsupportedField, match="no interpolator is installed"):
        video(stages=(), enable_frame_interpolation=True)
    with pytest.raises(UnsupportedField, match="no upscaler is installed"):
        video(stages=(), enable_upscaling=True)


@pytest.mark.parametrize("url", ["ftp://x", "media.example.org", "https://x/?a=1", "https://"])
def test_a_public_base_url_must_be_one(url) -> None:
    with pytest.raises(ValueError, match="public_base_url"):
        GatewaySettings(public_base_url=url)


def test_settings_are_read_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("VITASCOPE_GATEWAY_CORS_ORIGINS", "https://a.example, https://b.example/")
    monkeypatch.setenv("VITASCOPE_GATEWAY_PUBLIC_BASE_URL", "https://media.example.org/api/")

    settings = GatewaySettings()

    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.public_base_url == "https://media.example.org/api"
