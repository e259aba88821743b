"""Pictures that others made: upright, in eight bits and in sRGB, their transparency kept; what is none is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from media_clips import frame
from PIL import Image, ImageCms

from vitascope_core.errors import DamagedMedia, MediaTooLarge, UnsupportedMedia
from vitascope_frames.media_file import MediaLimits
from vitascope_frames.picture_file import is_picture, picture_size, read_picture

DRAWN = frame(7)
SOFT = np.dstack([DRAWN, np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)])
EXACT = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}, "BMP": {}}


def saved(image: Image.Image | np.ndarray, path: Path, file_format: str = "PNG", **options: object) -> Path:
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, file_format, **options)
    return path


def read(path: Path, **limits: int) -> np.ndarray:
    return read_picture(path, MediaLimits(**limits))


@pytest.mark.parametrize("file_format", EXACT)
def test_what_loses_nothing_comes_byte_for_byte(tmp_path: Path, file_format: str) -> None:
    assert np.array_equal(read(saved(DRAWN, tmp_path / "a", file_format, **EXACT[file_format])), DRAWN)


def test_a_jpeg_comes_as_it_is_decoded(tmp_path: Path) -> None:
    path = saved(DRAWN, tmp_path / "a", "JPEG", quality=95)

    assert np.array_equal(read(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_kept_and_so_are_the_colours_under_it(tmp_path: Path, file_format: str) -> None:
    assert np.array_equal(read(saved(SOFT, tmp_path / "a", file_format, **EXACT[file_format])), SOFT)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path: Path, file_format: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    # Grey halves, which JPEG keeps well enough to tell how they lie.
    halves = np.full((48, 64, 3), 40, np.uint8)
    halves[:16, :16] = 220
    path = saved(halves, tmp_path / "a", file_format, exif=tags)
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: np.rot90,
    }
    expected = turns[orientation](halves)

    assert read(path).shape == expected.shape
    assert np.abs(read(path).astype(int) - expected).mean() < 2
    assert picture_size(path) == expected.shape[1::-1]


def palette(path: Path) -> np.ndarray:
    image = Image.fromarray(DRAWN).quantize(8)
    saved(image, path)
    return np.asarray(image.convert("RGB"))


def palette_with_holes(path: Path) -> np.ndarray:
    image = Image.fromarray(DRAWN).quantize(8)
    saved(image, path, transparency=3)
    alpha = np.where(np.asarray(image) == 3, 0, 255).astype(np.uint8)
    return np.dstack([np.asarray(image.convert("RGB")), alpha])


def grey(path: Path) -> np.ndarray:
    saved(DRAWN[..., 0], path)
    return np.dstack([DRAWN[..., 0]] * 3)


def grey_with_alpha(path: Path) -> np.ndarray:
    saved(Image.merge("LA", [Image.fromarray(SOFT[..., 0]), Image.fromarray(SOFT[..., 3])]), path)
    return np.dstack([SOFT[..., 0]] * 3 + [SOFT[..., 3]])


def black_and_white(path: Path) -> np.ndarray:
    image = Image.fromarray(DRAWN).convert("1")
    saved(image, path)
    return np.asarray(image.convert("RGB"))


def sixteen_bits(path: Path) -> np.ndarray:
    values = (np.arange(48 * 64, dtype=np.uint32) * 65535 // (48 * 64 - 1)).astype(np.uint16).reshape(48, 64)
    saved(values, path)
    return np.dstack([np.round(values / 257).astype(np.uint8)] * 3)


def one_of_sixteen_bits_is_clear(path: Path) -> np.ndarray:
    values = np.full((48, 64), 1000, np.uint16)
    values[0, 0] = 40_000
    saved(values, path, transparency=40_000)
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[0, 0] = 0
    return np.dstack([np.round(values / 257).astype(np.uint8)] * 3 + [alpha])


def four_inks(path: Path) -> np.ndarray:
    image = Image.fromarray(DRAWN).convert("CMYK")
    saved(image, path, "TIFF")
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "made",
    [
        palette,
        palette_with_holes,
        grey,
        grey_with_alpha,
        black_and_white,
        sixteen_bits,
        one_of_sixteen_bits_is_clear,
        four_inks,
    ],
)
def test_every_kind_of_picture_becomes_eight_bit_rgb(tmp_path: Path, made: Callable[[Path], np.ndarray]) -> None:
    expected = made(tmp_path / "a")

    assert np.array_equal(read(tmp_path / "a"), expected)


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def wide() -> bytes:
    """A profile like sRGB's with red and green swapped: nobody who heeds it can miss it."""
    data = bytearray(profile("sRGB"))
    tags = int.from_bytes(data[128:132], "big")
    places = {data[132 + 12 * i : 136 + 12 * i].decode(): 132 + 12 * i for i in range(tags)}
    red, green = places["rXYZ"], places["gXYZ"]
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_colour_profile_is_heeded(tmp_path: Path, channels: int) -> None:
    path = saved(SOFT[..., :channels].copy(), tmp_path / "a", icc_profile=wide())
    swapped = SOFT[..., [1, 0, 2, 3][:channels]]

    assert np.abs(read(path).astype(int) - swapped).max() <= 1


@pytest.mark.parametrize("said", [profile("sRGB"), b"no profile"], ids=["the usual one", "a broken one"])
def test_other_profiles_change_nothing(tmp_path: Path, said: bytes) -> None:
    assert np.array_equal(read(saved(DRAWN, tmp_path / "a", icc_profile=said)), DRAWN)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_data_that_is_broken_does_no_harm(tmp_path: Path) -> None:
    path = saved(DRAWN, tmp_path / "a", "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")

    assert np.array_equal(read(path), np.asarray(Image.open(path)))


def test_of_a_photo_with_previews_behind_it_the_photo_is_taken(tmp_path: Path) -> None:
    others = [Image.fromarray(255 - DRAWN)]
    path = saved(DRAWN, tmp_path / "a.jpg", "MPO", save_all=True, append_images=others, quality=95)

    assert np.abs(read(path).astype(int) - DRAWN).mean() < 4


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_more_than_one_picture_is_refused(tmp_path: Path, file_format: str) -> None:
    others = [Image.fromarray(frame(number)) for number in (1, 2)]
    path = saved(DRAWN, tmp_path / "a", file_format, save_all=True, append_images=others)

    with pytest.raises(UnsupportedMedia, match="holds 3 pictures"):
        read(path)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("share", [0.005, 0.5, 0.99])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_picture_that_was_cut_short_is_damaged(tmp_path: Path, file_format: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    path = saved(noise, tmp_path / "a", file_format)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])

    with pytest.raises(DamagedMedia, match="the picture is damaged"):
        read(path)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"a letter" * 99), r"no picture that is read here \(PNG, JPEG, WebP, BMP, TIFF"),
        (lambda path: saved(DRAWN, path, "GIF"), "no picture that is read here"),
        # Pillow would start another program to draw it.
        (lambda path: saved(DRAWN, path, "EPS"), "no picture that is read here"),
        (lambda path: saved(Image.new("F", (4, 4)), path, "TIFF"), "32 bits a value"),
        (lambda path: saved(Image.new("I", (4, 4)), path, "TIFF"), "32 bits a value"),
    ],
    ids=["nothing", "no picture", "gif", "eps", "floats", "integers"],
)
def test_what_is_not_read_is_refused(tmp_path: Path, made: Callable[[Path], object], said: str) -> None:
    made(tmp_path / "a.png")

    with pytest.raises(UnsupportedMedia, match=said):
        read(tmp_path / "a.png")


def test_too_many_pixels_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = saved(Image.new("1", (6000, 6000)), tmp_path / "a")
    # Nothing but the header is left: had it been unpacked, it would be damaged.
    path.write_bytes(path.read_bytes()[:45])

    with pytest.raises(MediaTooLarge, match="6000x6000, more than 35389440 pixels"):
        read(path)


def test_pillows_own_bound_is_told_as_one(tmp_path: Path) -> None:
    path = saved(DRAWN, tmp_path / "a", "BMP")
    data = bytearray(path.read_bytes())
    data[18:26] = (30_000).to_bytes(4, "little") * 2
    path.write_bytes(data)

    with pytest.raises(MediaTooLarge, match="900000000 pixels"):
        read(path)


def still(file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(DRAWN).save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a", still("PNG"), True),
        ("a.mp4", still("JPEG"), True),
        ("a", still("WEBP"), True),
        ("a", still("BMP"), True),
        ("a", still("TIFF"), True),
        ("a.jpg", b"a letter", True),
        ("a.png", still("PNG", save_all=True, append_images=[Image.fromarray(frame(1))]), False),
        ("a.gif", still("GIF"), False),
        ("a.avi", b"RIFF....AVI ", False),
        ("a.mp4", b"", False),
    ],
)
def test_a_picture_is_known_by_how_it_begins_else_by_its_name(tmp_path: Path, name, content, expected: bool) -> None:
    (tmp_path / name).write_bytes(content)

    assert is_picture(tmp_path / name) is expected
