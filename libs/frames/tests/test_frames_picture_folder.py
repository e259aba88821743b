"""A folder of pictures, packed without loss in the order that people mean."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_clips import frame
from PIL import Image

from vitascope_core.errors import DamagedMedia, UnsupportedMedia
from vitascope_frames.media_file import MediaLimits, open_media
from vitascope_frames.picture_folder import pack_pictures, pictures_in

FILM = Fraction(24000, 1001)


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    Image.fromarray(pixels).save(path, **options)


def packed(folder: Path) -> tuple[list[np.ndarray], Fraction]:
    pack_pictures(pictures_in(folder), FILM, folder / "packed")
    with open_media(folder / "packed", MediaLimits()) as media:
        return list(media.pictures()), media.fps


def test_pictures_come_back_byte_for_byte_in_natural_order(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / f"Shot {number}.png", frame(number, 63, 47))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_text("no picture")

    found, fps = packed(tmp_path)

    assert fps == FILM
    assert len(found) == 12
    assert all(np.array_equal(got, frame(number, 63, 47)) for number, got in enumerate(found))


def test_every_kind_of_picture_becomes_rgb(tmp_path: Path) -> None:
    grey = frame(0)[..., 0]
    save(tmp_path / "1.png", grey)
    save(tmp_path / "2.png", np.dstack([frame(0), np.zeros((48, 64), np.uint8)]))
    Image.fromarray(frame(0)).convert("P").save(tmp_path / "3.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "4.webp", np.rot90(frame(0)).copy(), lossless=True, exif=turned)

    found, _ = packed(tmp_path)

    assert [picture.shape for picture in found] == [(48, 64, 3)] * 4
    assert np.array_equal(found[0], np.dstack([grey] * 3))
    assert not found[1].any()
    assert np.array_equal(found[3], frame(0))


@pytest.mark.parametrize("ending", ["jpg", "tiff"])
def test_pictures_that_lie_on_their_side_have_the_size_that_is_seen(tmp_path: Path, ending: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "1.png", frame(0))
    save(tmp_path / f"2.{ending}", np.rot90(frame(0)).copy(), exif=turned)

    found, _ = packed(tmp_path)

    assert [picture.shape for picture in found] == [(48, 64, 3)] * 2


def test_the_odd_one_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a1.png", frame(0))
    save(tmp_path / "a2.png", frame(0, 64, 64))

    with pytest.raises(UnsupportedMedia, match=r"a2\.png is 64x64, a1\.png is 64x48"):
        packed(tmp_path)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a1.png", frame(0))
    data = (tmp_path / "a1.png").read_bytes()
    (tmp_path / "a2.png").write_bytes(data[: len(data) // 2])

    with pytest.raises(DamagedMedia, match=r"a2\.png cannot be read"):
        packed(tmp_path)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")

    with pytest.raises(UnsupportedMedia, match="holds no pictures"):
        pictures_in(tmp_path)
