"""Still pictures: the files of image jobs, and the previews of video jobs."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitascope_core.errors import Final
from vitascope_core.job import JobKind
from vitascope_core.quality import COMPRESSION, DEFAULT_COMPRESSION
from vitascope_frames.chunk import Frames
from vitascope_frames.colour import BLACK, WHITE, flatten

THUMBNAIL_SIDE = 1024
THUMBNAIL_QUALITY = 80
TILE_WIDTH = 256
TILE_HEIGHT = 1024
"""Bounds the tiles of very tall frames: five rows of them must fit into a JPEG."""
SHEET_COLUMNS = 5
SHEET_ROWS = 5
SHEET_QUALITY = 85

_FULL_CHROMA_FROM = 90
"""JPEG quality from which chroma is kept at full size: 1.6 to 3.4 dB better there, wasted below."""

# 4 % larger than Pillow's own level and 3.7 times faster.
_PNG_LEVEL = 3
# A name such as "high" asks for a look, and PNG always looks the same: only another number asks for a smaller file.
_NAMED = frozenset({*COMPRESSION.values(), DEFAULT_COMPRESSION[JobKind.IMAGE]})


class PictureTooLarge(Final):
    """The picture has more pixels on a side than the file format can hold."""

    code = "invalid_value"


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture.

    Attributes:
        width: Pixels of the file.
        height: Pixels of the file.
    """

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """How a picture format is named in files and in HTTP."""

    suffix: str
    content_type: str


FORMATS: Mapping[str, PictureFormat] = {
    "png": PictureFormat("png", "image/png"),
    "jpeg": PictureFormat("jpg", "image/jpeg"),
    "webp": PictureFormat("webp", "image/webp"),
}


def encode_picture(frame: Frames, file_format: str, compression: int) -> Picture:
    """Encode one frame.

    Args:
        frame: uint8 (H, W, 3 or 4). JPEG has no alpha: the frame is composited on white.
        file_format: "png", "jpeg" or "webp".
        compression: 0 to 100 (best): the quality of JPEG and WebP. PNG loses nothing: how hard it tries to be small.

    Raises:
        PictureTooLarge: A side is longer than the format can hold (JPEG 65,535, WebP 16,383).
    """
    if file_format == "png":
        level = _PNG_LEVEL if compression in _NAMED else round(compression * 9 / 100)
        return _encode(Image.fromarray(frame), "PNG", compress_level=level)
    if file_format == "jpeg":
        return _encode_jpeg(Image.fromarray(flatten(frame, WHITE)), compression)
    if file_format == "webp":
        return _encode(Image.fromarray(frame), "WEBP", quality=compression)
    raise ValueError(f"no picture format {file_format!r}")


def thumbnail(frame: Frames) -> Picture:
    """Return a WebP of a video's frame, its longer side at most `THUMBNAIL_SIDE`; smaller frames keep their size."""
    image = _fitted(Image.fromarray(flatten(frame, BLACK)), THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    return _encode(image, "WEBP", quality=THUMBNAIL_QUALITY)


class Spritesheet:
    """Small tiles of evenly spaced frames in one picture, row by row, for scrubbing.

    Tiles are `TILE_WIDTH` wide, or as wide as the frame if that is less.

    Holds no more than its tiles, however long the video is.

    Attributes:
        numbers: The frames that are shown, in order. Tile i stands for the time from i / tiles of the video on.
        columns: Tiles in a row; the last row may be shorter.
    """

    def __init__(self, frames: int) -> None:
        tiles = min(frames, SHEET_COLUMNS * SHEET_ROWS)
        self.numbers = tuple(tile * frames // tiles for tile in range(tiles))
        self.columns = min(tiles, SHEET_COLUMNS)
        self._tiles: list[Image.Image] = []

    def add(self, frame: Frames) -> None:
        """Add the frame of the next number in `numbers`."""
        self._tiles.append(_fitted(Image.fromarray(flatten(frame, BLACK)), TILE_WIDTH, TILE_HEIGHT))

    def encode(self) -> Picture:
        """Return the sheet as a JPEG; all tiles must have been added."""
        width, height = self._tiles[0].size
        sheet = Image.new("RGB", (self.columns * width, math.ceil(len(self.numbers) / self.columns) * height))
        for place, tile in enumerate(self._tiles):
            row, column = divmod(place, self.columns)
            sheet.paste(tile, (column * width, row * height))
        return _encode_jpeg(sheet, SHEET_QUALITY)


def decode_picture(data: bytes) -> Frames:
    """Return a picture as uint8 (H, W, 3), or (H, W, 4) if it has alpha."""
    with Image.open(io.BytesIO(data)) as image:
        mode = "RGBA" if image.has_transparency_data else "RGB"
        return np.asarray(image.convert(mode))


def _fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the image made to fit, its shape kept; one that fits already as it is."""
    factor = min(width / image.width, height / image.height)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _encode_jpeg(image: Image.Image, quality: int) -> Picture:
    if quality >= _FULL_CHROMA_FROM:
        return _encode(image, "JPEG", quality=quality, subsampling="4:4:4", optimize=True)
    return _encode(image, "JPEG", quality=max(1, quality))


def _encode(image: Image.Image, file_format: str, **options: str | int | bool) -> Picture:
    buffer = io.BytesIO()
    try:
        image.save(buffer, file_format, **options)
    except (ValueError, OSError) as error:
        # Pillow's encoders say no more than that; size is the only thing left that they refuse in RGB and RGBA.
        raise PictureTooLarge(f"{image.width}x{image.height} does not fit into {file_format}: {error}") from error
    return Picture(buffer.getvalue(), image.width, image.height)
