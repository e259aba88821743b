"""Reading a still picture that somebody else made: upright, in eight bits and in sRGB, its transparency kept.

What is read may be made to do harm, so a service reads it in a process of its own (`vitascope_frames.media_process`).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from vitascope_core.errors import DamagedMedia, MediaTooLarge, UnsupportedMedia
from vitascope_frames.chunk import Frames
from vitascope_frames.media_file import MediaLimits

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Decoders that are let in. Never all of Pillow's: that for EPS runs another program."""

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""What is a picture, by its name."""

_HEAD_BYTES = 1 << 16
_PNG = b"\x89PNG\r\n\x1a\n"
_BEGINNINGS = (_PNG, b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")

_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Exif's orientations of a picture that is stored on its side."""

_MPO = "MPO"
"""A photo with pictures behind it: previews, or what the other eye sees. Many phones and cameras write it as .jpg."""

_PILLOWS = (OSError, ValueError, SyntaxError, EOFError, struct.error)
"""What Pillow's decoders raise: more kinds than its documentation names."""


def is_picture(path: Path) -> bool:
    """Whether a file is a still picture, by how it begins, else by its name.

    An animated PNG is a video: it is read as one.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_PNG):
        return b"acTL" not in head.partition(b"IDAT")[0]
    return _begins_as_one(head) or path.suffix.lower() in ENDINGS


def read_picture(path: Path, limits: MediaLimits) -> Frames:
    """Return the picture, uint8 (height, width, 3), or 4 with transparency.

    Raises:
        UnsupportedMedia: It is none of the formats that are read here, holds several pictures, or values that no
            white belongs to.
        DamagedMedia: It breaks off or cannot be decoded.
        MediaTooLarge: It has more pixels than allowed.
    """
    with _opened(path) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise MediaTooLarge(f"the picture is {width}x{height}, more than {limits.max_pixels} pixels")
        count = getattr(image, "n_frames", 1)
        if count > 1 and image.format != _MPO:
            raise UnsupportedMedia(f"the file holds {count} pictures, an animation or pages; one is needed")
        image.load()
        return _pixels(_upright(image))


def picture_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of the upright picture, as its header says.

    Raises:
        UnsupportedMedia, DamagedMedia, MediaTooLarge: See `read_picture`.
    """
    with _opened(path) as image:
        # Of a TIFF Pillow has done it already.
        turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in _TURNED
        return (image.height, image.width) if turned else image.size


def _begins_as_one(head: bytes) -> bool:
    return head.startswith(_BEGINNINGS) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise _unidentified(path) from error
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(f"the picture is too large: {error}") from error
    except _PILLOWS as error:
        raise DamagedMedia(f"the picture is damaged: {error}") from error


def _unidentified(path: Path) -> UnsupportedMedia | DamagedMedia:
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return UnsupportedMedia("the file is empty")
    if _begins_as_one(head):
        return DamagedMedia("the picture is damaged: its header is not whole")
    return UnsupportedMedia("the file is no picture that is read here (PNG, JPEG, WebP, BMP, TIFF)")


def _upright(image: Image.Image) -> Image.Image:
    # What stands beside the pixels may be broken, and they are none the worse for it.
    with suppress(*_PILLOWS):
        return ImageOps.exif_transpose(image)
    return image


def _pixels(image: Image.Image) -> Frames:
    colours, alpha = _parts(image)
    profile = image.info.get("icc_profile")
    rgb = np.asarray((_in_srgb(colours, profile) if profile else colours).convert("RGB"))
    return rgb if alpha is None else np.dstack([rgb, alpha])


def _parts(image: Image.Image) -> tuple[Image.Image, Frames | None]:
    """Return the colours, in eight bits, and the opacity of each pixel; None if all are opaque."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        levels = ((values * 255 + 32767) // 65535).astype(np.uint8)
        key = image.info.get("transparency")
        return Image.fromarray(levels), None if key is None else np.where(values == key, 0, 255).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise UnsupportedMedia("the picture has 32 bits a value, and does not say which of them is white")
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image if image.mode in ("L", "CMYK") else image.convert("RGB"), None
    full = image.convert("RGBA")
    grey = image.mode in ("1", "L", "LA")
    return full.convert("L" if grey else "RGB"), np.asarray(full.getchannel("A"))


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return what a picture's colour profile means; a profile that does not fit is not heeded, as in browsers."""
    with suppress(ImageCms.PyCMSError, *_PILLOWS):
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        if converted is not None:
            return converted
    return image
