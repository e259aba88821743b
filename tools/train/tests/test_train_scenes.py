"""What the demonstration model is taught: captions and clips that agree, and an eye that can tell."""

from __future__ import annotations

from random import Random

import pytest
import torch

from tools.train.checker import look, stripedness
from tools.train.drawings import View
from tools.train.scenes import (
    FRAMES,
    KNOWN_SHAPES,
    MOTIONS,
    SIDE,
    Combination,
    Scene,
    caption,
    combinations,
    draw,
    moments,
    scene,
    split,
)
from tools.train.text import LONGEST, blurred, embed, encoder, tokenizer

RED_CIRCLE = Combination("circle", "red", "right", "blue")


def test_what_is_held_out_is_never_trained_on() -> None:
    trained, held_out = split()

    assert len(held_out) == 200
    assert not set(trained) & set(held_out)
    assert sorted(trained + held_out) == combinations()


def test_the_split_is_always_the_same() -> None:
    assert split() == split()


def test_every_word_of_every_caption_is_known() -> None:
    random, reader = Random(1), tokenizer()
    captions = {caption(what, random, still=still) for what in combinations() for still in (False, True)}

    numbers = reader(sorted(captions)).input_ids

    assert len(captions) > 1000
    assert not any(reader.unk_token_id in row for row in numbers)
    assert max(map(len, numbers)) < LONGEST


def test_another_word_is_read_as_an_unknown_one() -> None:
    reader = tokenizer()

    numbers = reader("A curious RED circle").input_ids

    assert reader.convert_ids_to_tokens(numbers) == ["a", "<unk>", "red", "circle", "</s>"]


def test_most_captions_name_everything() -> None:
    random = Random(2)
    texts = [caption(RED_CIRCLE, random) for _ in range(200)]

    assert sum("red" in text and "blue" in text for text in texts) > 180
    assert sum("right" in text for text in texts) > 170


def test_a_whole_caption_names_everything_in_one_of_several_ways() -> None:
    random = Random(1)
    texts = {caption(RED_CIRCLE, random, whole=True) for _ in range(200)}

    assert len(texts) > 20
    assert all({"red", "right", "blue"} <= set(text.replace(",", "").split()) for text in texts)


def test_an_embedding_is_zero_behind_the_captions_end() -> None:
    torch.manual_seed(0)

    embedded = embed(tokenizer(), encoder(), ["a red circle", ""])

    assert embedded.shape[:2] == (2, LONGEST)
    assert embedded[0, 3].abs().sum() > 0
    assert not embedded[0, 4:].any()
    assert not embedded[1, 1:].any()


def test_a_caption_of_too_many_words_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 22 words"):
        embed(tokenizer(), encoder(), ["red " * 40])


def test_blurring_replaces_words_and_keeps_their_number() -> None:
    torch.manual_seed(0)

    assert blurred("a red circle", 0.0) == "a red circle"
    assert blurred("a red circle", 1.0) == "… … …"


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", KNOWN_SHAPES)
def test_the_whole_object_is_in_the_picture_at_all_times(shape: str, motion: str) -> None:
    random = Random(3)
    scenes = [scene(Combination(shape, "white", motion, "black"), random) for _ in range(10)]

    clips = draw(scenes, moments())[:, 0]
    wider = torch.nn.functional.pad(clips, (1, 1, 1, 1), value=float(clips.min()))

    # The anti-aliased rim of an object may end at the picture's edge.
    edges = torch.cat((wider[..., 1, :], wider[..., -2, :], wider[..., :, 1], wider[..., :, -2]), -1)
    assert (edges > 0.5).float().mean() < 0.01


def test_a_part_of_a_picture_is_that_part_of_the_whole() -> None:
    one = scene(RED_CIRCLE, Random(4))

    whole = draw([one], [0.3])
    part = draw([one], [0.3], View(SIDE, 16, 8, 32, 40))

    assert torch.allclose(part, whole[..., 8:48, 16:48], atol=1e-6)


def test_the_checker_sees_what_is_drawn() -> None:
    random = Random(5)
    _, wanted = split()
    for what in wanted[:60]:
        seen = look(draw([scene(what, random)], moments())[0])
        assert (seen.shape, seen.colour, seen.motion, seen.background) == (
            what.shape,
            what.colour,
            what.motion,
            what.background,
        )


def test_the_checker_tells_nothing_of_noise() -> None:
    torch.manual_seed(1)

    seen = look(torch.rand(3, FRAMES, SIDE, SIDE))

    assert seen.shape is None


def test_the_checker_tells_only_the_background_of_an_empty_clip() -> None:
    seen = look(torch.tensor([0.97, 0.83, 0.22])[:, None, None, None].expand(3, FRAMES, SIDE, SIDE))

    assert (seen.background, seen.colour, seen.shape, seen.motion) == ("yellow", None, None, None)


def test_a_single_picture_has_no_motion() -> None:
    seen = look(draw([scene(RED_CIRCLE, Random(6))], [0.5])[0])

    assert (seen.shape, seen.colour, seen.motion) == ("circle", "red", None)


def test_stripes_are_told_from_a_plain_object() -> None:
    plain = Scene(RED_CIRCLE, (0.5, 0.5), 0.22, 0.2)

    assert stripedness(draw([plain], moments())[0]) < 0.1
    assert stripedness(draw([plain.striped()], moments())[0]) > 0.3
