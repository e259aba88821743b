"""Decoding latents into pixels piece by piece, so that the first frames leave while the last are still latents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from vitascope_core.errors import Final
from vitascope_frames.chunk import Frames


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """What a pipeline hands to its VAE: everything that is needed to decode later.

    Attributes:
        z: Latents in the VAE's own scale, dtype and device, (N, C, T, H, W) or (N, C, H, W).
        args: Further positional arguments of ``vae.decode``, for example a decode timestep.
        kwargs: Its keyword arguments, without ``return_dict``.
    """

    z: Tensor
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Number of samples, N."""
        return self.z.shape[0]

    def sample(self, output: int) -> Latents:
        """Return one sample, as a batch of one; tensors among the arguments that hold a row per sample are cut too."""

        def cut(value: Any) -> Any:
            rows = isinstance(value, Tensor) and value.ndim and value.shape[0] == self.outputs
            return value[output : output + 1] if rows else value

        kwargs = {name: cut(value) for name, value in self.kwargs.items()}
        return Latents(cut(self.z), tuple(cut(value) for value in self.args), kwargs)


class VaeDecoder:
    """Decodes one sample at a time, frame by frame where the VAE works so inside.

    It never uses the state that the VAE keeps for a decode, so that a pipeline may use the same VAE in another thread.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._whole = threading.Lock()
        # The class's method: the engine puts another on the instance while a pipeline runs.
        self._decode = type(vae).decode.__get__(vae)

    @property
    def streams(self) -> bool:
        """Whether pieces are smaller than the whole."""
        return isinstance(self._vae, AutoencoderKLWan)

    def pieces(self, sample: Latents) -> Iterator[Tensor]:
        """Yield the pixels of one sample in order.

        Args:
            sample: Latents with N = 1.

        Yields:
            (1, C, t, H, W), range about [-1, 1], in the VAE's dtype on its device. Put together they are bit-equal to
            ``vae.decode`` of the sample. Wan yields 1 frame for the first latent frame and 4 for each that follows.
        """
        if self.streams and not sample.args and not sample.kwargs:
            yield from _wan_pieces(self._vae, sample.z)
            return
        # Several VAEs keep a decode's state in themselves; a preview's may come beside that of a finished job.
        with self._whole:
            pixels = self._decode(sample.z, *sample.args, return_dict=False, **sample.kwargs)[0]
        yield pixels if pixels.ndim == 5 else pixels.unsqueeze(2)


def _wan_pieces(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """Decode as ``AutoencoderKLWan._decode`` does, frame by frame, with the causal convolutions' cache here."""
    ratio = vae.spatial_compression_ratio
    rows, columns = vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio
    if vae.use_tiling and (z.shape[-1] > columns or z.shape[-2] > rows):
        frames = _wan_tiled(vae, z)
    else:
        frames = _wan_whole(vae, z)
    patch = vae.config.patch_size
    for frame in frames:
        pixels = frame if patch is None else unpatchify(frame, patch_size=patch)  # type: ignore[no-untyped-call]
        yield torch.clamp(pixels, min=-1.0, max=1.0)


def _fresh_cache(vae: Any) -> list[Tensor | None]:
    return [None] * vae._cached_conv_counts["decoder"]


def _wan_whole(vae: Any, z: Tensor) -> Iterator[Tensor]:
    x = vae.post_quant_conv(z)
    cache = _fresh_cache(vae)
    for index in range(z.shape[2]):
        yield vae.decoder(x[:, :, index : index + 1], feat_cache=cache, feat_idx=[0], first_chunk=index == 0)


def _wan_tiled(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """Decode tiles with time as the outer loop, where ``tiled_decode`` has it as the inner one.

    Every tile keeps a cache of its own. Blending works on single frames, so the order changes no bit; it costs the
    memory of all tiles' caches at once.
    """
    ratio, patch = vae.spatial_compression_ratio, vae.config.patch_size or 1
    height, width = z.shape[-2] * ratio // patch, z.shape[-1] * ratio // patch
    tile_rows, tile_columns = vae.tile_sample_min_height // ratio, vae.tile_sample_min_width // ratio
    step_rows, step_columns = vae.tile_sample_stride_height // ratio, vae.tile_sample_stride_width // ratio
    keep_height, keep_width = vae.tile_sample_stride_height // patch, vae.tile_sample_stride_width // patch
    blend_height = vae.tile_sample_min_height // patch - keep_height
    blend_width = vae.tile_sample_min_width // patch - keep_width

    tops, lefts = range(0, z.shape[-2], step_rows), range(0, z.shape[-1], step_columns)
    caches = {(top, left): _fresh_cache(vae) for top in tops for left in lefts}
    for index in range(z.shape[2]):
        above: list[Tensor] = []
        bands = []
        for top in tops:
            row: list[Tensor] = []
            for left in lefts:
                tile = z[:, :, index : index + 1, top : top + tile_rows, left : left + tile_columns]
                row.append(
                    vae.decoder(
                        vae.post_quant_conv(tile), feat_cache=caches[top, left], feat_idx=[0], first_chunk=index == 0
                    )
                )
            for place, tile in enumerate(row):  # in place, with neighbours that are blended already, as upstream
                if above:
                    vae.blend_v(above[place], tile, blend_height)
                if place:
                    vae.blend_h(row[place - 1], tile, blend_width)
            bands.append(torch.cat([tile[..., :keep_height, :keep_width] for tile in row], dim=-1))
            above = row
        yield torch.cat(bands, dim=3)[..., :height, :width]


def to_frames(pixels: Tensor, *, signed: bool) -> Frames:
    """Return pixels as bytes, as the pipelines' own postprocessing to pictures does.

    Args:
        pixels: (1, C, T, H, W), C = 3 or 4, any float dtype and device.
        signed: Whether the range is [-1, 1] (almost every VAE) rather than [0, 1].

    Returns:
        uint8 (T, H, W, C): clamped to [0, 1] in the VAE's dtype, times 255 in float32, rounded half to even.

    Raises:
        Final: A pixel is not a number: the VAE overflowed, which happens to some in fp16.
    """
    if pixels.shape[1] not in (3, 4):
        raise Final(f"the VAE made {pixels.shape[1]} channels; 3 or 4 are supported")
    if not torch.isfinite(pixels).all():
        raise Final("decoding overflowed; use --vae-precision bf16 or fp32")
    unit = (pixels * 0.5 + 0.5).clamp(0, 1) if signed else pixels.clamp(0, 1)
    levels = (unit[0].permute(1, 2, 3, 0).float() * 255).round().to(torch.uint8)
    frames: Frames = levels.contiguous().cpu().numpy()
    return frames
