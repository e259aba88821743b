from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from vitascope_frames import testcard
from vitascope_frames.pictures import (
    FORMATS,
    PictureTooLarge,
    Spritesheet,
    decode_picture,
    encode_picture,
    thumbnail,
)


def photo(width: int = 64, height: int = 48, channels: int = 3) -> np.ndarray:
    ramp = np.linspace(0, 255, width * height).reshape(height, width, 1)
    grain = np.random.default_rng(0).normal(scale=4, size=(height, width, channels))
    return (ramp + grain).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("compression", [0, 50, 75, 100])
def test_png_keeps_every_pixel_whatever_the_compression(compression, channels) -> None:
    frame = photo(channels=channels)

    assert np.array_equal(decode_picture(encode_picture(frame, "png", compression).data), frame)


def test_an_explicit_number_makes_a_smaller_png_and_a_name_does_not() -> None:
    frame = photo(256, 256)

    sizes = {c: len(encode_picture(frame, "png", c).data) for c in (75, 90, 99)}

    assert sizes[90] == sizes[75] > sizes[99]


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp"])
def test_a_file_is_of_its_format_and_size(file_format) -> None:
    picture = encode_picture(photo(), file_format, 75)

    with Image.open(io.BytesIO(picture.data)) as image:
        found = (image.get_format_mimetype(), image.size)

    assert found == (FORMATS[file_format].content_type, (64, 48))
    assert (picture.width, picture.height) == (64, 48)


@pytest.mark.parametrize("file_format", ["jpeg", "webp"])
def test_more_compression_number_means_better_and_larger(file_format) -> None:
    sizes = [len(encode_picture(photo(), file_format, number).data) for number in (0, 35, 75, 100)]

    assert sizes == sorted(set(sizes))


def test_jpeg_shows_what_is_transparent_as_white() -> None:
    frame = np.zeros((16, 16, 4), np.uint8)
    frame[:8, :, 3] = 255

    decoded = decode_picture(encode_picture(frame, "jpeg", 100).data)

    assert decoded[:7].max() < 6
    assert decoded[9:].min() > 249


def test_webp_keeps_transparency() -> None:
    frame = photo(channels=4)
    frame[..., 3] = 128

    assert (decode_picture(encode_picture(frame, "webp", 75).data)[..., 3] == 128).all()


@pytest.mark.parametrize(("compression", "sampling"), [(75, (2, 2)), (90, (1, 1))])
def test_good_jpegs_keep_their_chroma(compression, sampling) -> None:
    with Image.open(io.BytesIO(encode_picture(photo(), "jpeg", compression).data)) as image:
        assert image.layer[0][1:3] == sampling


@pytest.mark.parametrize(("file_format", "width"), [("webp", 16_384), ("jpeg", 65_536)])
def test_a_side_that_the_format_cannot_hold_is_a_final_error(file_format, width) -> None:
    with pytest.raises(PictureTooLarge, match=f"{width}x2 does not fit into {file_format.upper()}"):
        encode_picture(np.zeros((2, width, 3), np.uint8), file_format, 75)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2048, 1024), (1024, 512)), ((500, 1500), (341, 1024)), ((64, 48), (64, 48)), ((3000, 1), (1024, 1))],
)
def test_a_thumbnail_fits_its_side_and_is_never_enlarged(size, expected) -> None:
    picture = thumbnail(photo(*size))

    with Image.open(io.BytesIO(picture.data)) as image:
        assert (image.format, image.size) == ("WEBP", expected)
    assert (picture.width, picture.height) == expected


@pytest.mark.parametrize(
    ("frames", "columns", "size"),
    [
        (1, 1, (256, 128)),
        (3, 3, (768, 128)),
        (7, 5, (1280, 256)),
        (25, 5, (1280, 640)),
        (1000, 5, (1280, 640)),
    ],
)
def test_a_spritesheet_is_a_grid_of_equal_tiles(frames, columns, size) -> None:
    sheet = Spritesheet(frames)
    for _ in sheet.numbers:
        sheet.add(photo(512, 256))
    picture = sheet.encode()

    with Image.open(io.BytesIO(picture.data)) as image:
        assert (image.format, image.size) == ("JPEG", size)
    assert (len(sheet.numbers), sheet.columns) == (min(frames, 25), columns)


def test_a_spritesheets_frames_are_evenly_spaced_from_the_first() -> None:
    numbers = Spritesheet(1000).numbers

    assert numbers[0] == 0
    assert {later - earlier for earlier, later in pairwise(numbers)} == {40}


def test_tiles_lie_row_by_row() -> None:
    sheet = Spritesheet(7)
    for number in sheet.numbers:
        sheet.add(testcard.draw(number, 256, 128, seed=1))
    pixels = decode_picture(sheet.encode().data)

    tiles = [pixels[row * 128 :][:128, column * 256 :][:, :256] for row in range(2) for column in range(5)]

    assert [testcard.read_number(tile) for tile in tiles[:7]] == list(range(7))


def test_tiles_of_very_tall_frames_are_bounded() -> None:
    sheet = Spritesheet(25)
    for _ in sheet.numbers:
        sheet.add(photo(64, 16_384))

    assert (sheet.encode().width, sheet.encode().height) == (5 * 4, 5 * 1024)


def test_previews_show_what_is_transparent_as_black_like_the_video() -> None:
    clear = np.full((16, 16, 4), 255, np.uint8)
    clear[..., 3] = 0

    assert decode_picture(thumbnail(clear).data).max() < 6


def test_tiles_are_never_wider_than_the_frame() -> None:
    sheet = Spritesheet(1)
    sheet.add(photo(64, 48))

    assert (sheet.encode().width, sheet.encode().height) == (64, 48)
