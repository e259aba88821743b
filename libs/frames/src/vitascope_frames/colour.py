"""Colour between arrays and video: full-range RGB on one side, limited-range BT.709 4:2:0 on the other."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from vitascope_frames.chunk import Frames

BLACK = 0
WHITE = 255

# Against a float reference these are at the rounding floor; swscale's defaults lose 5 dB of chroma.
_TO_YUV = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
# Without the last two the way back darkens by about one level.
_TO_RGB = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT

_FULL_RANGE = ("yuvj", "gray", "ya")
"""Formats whose values use all levels, whatever else they say."""
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
"""By the numbers of H.273, matrix coefficients."""
_SD = 576
"""Pictures of at most so many lines are from before BT.709."""


class ColourConverter:
    """Converts the pictures of one video; keeps swscale's tables from frame to frame, so it is for one thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def to_yuv(self, frame: Frames) -> av.VideoFrame:
        """Map RGB uint8 (H, W, 3), H and W even, to a yuv420p picture."""
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,  # swscale's default is BT.601
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_TO_YUV,
            threads=1,  # the default starts one for every CPU, and is slower
        )

    def to_rgb(self, picture: av.VideoFrame) -> Frames:
        """Map a yuv420p picture of ours to RGB uint8 (H, W, 3)."""
        converted = self._reformatter.reformat(
            picture,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_TO_RGB,
            threads=1,
        )
        return converted.to_ndarray().astype(np.uint8, copy=False)

    def from_media(self, picture: av.VideoFrame, width: int, height: int) -> Frames:
        """Map a picture of any format to RGB uint8 (height, width, 3); what is transparent becomes black.

        Colours that do not say how they were made are taken for what players take them.
        """
        alpha = any(component.is_alpha for component in picture.format.components)
        full = picture.format.is_rgb or picture.format.name.startswith(_FULL_RANGE)
        converted = self._reformatter.reformat(
            picture,
            width=width,
            height=height,
            format="rgba" if alpha else "rgb24",
            src_colorspace=None if picture.format.is_rgb else _matrix_of(picture),
            src_color_range=ColorRange.JPEG if full or picture.color_range == ColorRange.JPEG else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_TO_RGB,
            threads=1,
        )
        return flatten(converted.to_ndarray().astype(np.uint8, copy=False), BLACK)


def _matrix_of(picture: av.VideoFrame) -> Colorspace:
    return _MATRICES.get(int(picture.colorspace), Colorspace.ITU709 if picture.height > _SD else Colorspace.ITU601)


def flatten(frame: Frames, background: int) -> Frames:
    """Composite RGBA uint8 (H, W, 4) on a grey level, 0 to 255; RGB (H, W, 3) comes back as it is."""
    if frame.shape[2] == 3:
        return frame
    colour, alpha = frame[..., :3].astype(np.uint16), frame[..., 3:].astype(np.uint16)
    return ((colour * alpha + background * (255 - alpha) + 127) // 255).astype(np.uint8)


def pad_even(frame: Frames) -> Frames:
    """Repeat the last row and column up to an even size: 4:2:0 video cannot hold an odd one."""
    height, width, _ = frame.shape
    if height % 2 == 0 and width % 2 == 0:
        return frame
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
