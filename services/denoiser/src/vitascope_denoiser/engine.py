"""The engine: a stock diffusers pipeline, run with progress and cancellation, and split from its VAE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vitascope_core.errors import DeviceOutOfMemory, Final
from vitascope_core.job import DenoiseSpec
from vitascope_core.ports import Control
from vitascope_denoiser.call import Call
from vitascope_denoiser.card import check_served
from vitascope_denoiser.cutting import Cuts, cut
from vitascope_denoiser.decoding import Latents, VaeDecoder, to_frames
from vitascope_frames.chunk import Chunk, Frames


class DiffusersEngine:
    """Denoises and decodes with a loaded pipeline.

    `denoise` is for one thread at a time, because pipelines keep a request's state; `decode` too; but one thread may
    decode while another denoises.
    """

    def __init__(self, pipe: Any) -> None:
        """Take over a loaded pipeline.

        Raises:
            InvalidModel: It cannot be driven from a text alone, with progress and cancellation.
        """
        self._pipe = pipe
        self._call = Call(pipe)
        check_served(pipe, self._call)
        self._vae = VaeDecoder(pipe.vae)
        processor = getattr(pipe, "video_processor", None) or getattr(pipe, "image_processor", None)
        self._signed = processor is None or bool(processor.config.get("do_normalize", True))

    def denoise(self, specs: Sequence[DenoiseSpec], controls: Sequence[Control]) -> list[Latents]:
        """Return the latents of each spec, its outputs as a batch.

        Every output has a generator of its own on the CPU, so that its noise depends on its seed alone: not on the
        batch and not on the device. The networks may round differently for other batch sizes (some 1e-6 in fp32).
        Specs are run one after the other.

        Args:
            specs: What to make.
            controls: One for each spec: ticked before the first and after every step.

        Raises:
            Stopped: From a control; the pipeline is clean and takes the next request.
            DeviceOutOfMemory: As it says; another worker may have more.
            Final: The model made values that are not numbers.
        """
        return [self._denoise(spec, control) for spec, control in zip(specs, controls, strict=True)]

    @torch.no_grad()  # the pipelines' own does not cover all of them, and it belongs to a thread
    def _denoise(self, spec: DenoiseSpec, control: Control) -> Latents:
        def after_step(pipe: Any, index: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
            control.tick(index + 1, pipe.num_timesteps)
            return {}

        control.tick()
        with self._vae_split_off() as handed, _memory_errors("denoising"):
            try:
                self._pipe(
                    **self._call.arguments(spec),
                    generator=[torch.Generator("cpu").manual_seed(seed) for seed in spec.seeds],
                    output_type="pt",
                    callback_on_step_end=after_step,
                )
            except _HandedOver:
                pass
            finally:
                # Offload hooks and step caches keep the state of a run that did not reach its end.
                self._pipe.maybe_free_model_hooks()
            return _checked(handed, spec)

    @torch.no_grad()
    def decode(self, latents: Latents, cuts: Cuts) -> Iterator[Chunk]:
        """Yield the chunks of every output, output by output, so that memory holds the pixels of one chunk.

        Raises:
            DeviceOutOfMemory: As it says.
            Final: The frames are not as many as the cuts, or not numbers.
        """
        for output in range(latents.outputs):
            yield from cut(self._frames(latents.sample(output)), cuts, output)

    def _frames(self, sample: Latents) -> Iterator[Frames]:
        with _memory_errors("decoding"):
            for pixels in self._vae.pieces(sample):
                yield to_frames(pixels, signed=self._signed)

    @contextmanager
    def _vae_split_off(self) -> Iterator[list[Latents]]:
        """Let the pipeline's ``vae.decode`` end the pipeline; what it was given is put into the list.

        This asks nothing of a model: how latents are scaled and unpacked for the VAE stays the pipeline's affair.
        """
        handed: list[Latents] = []

        def decode(z: torch.Tensor, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:  # noqa: ARG001
            handed.append(Latents(z, args, kwargs))
            raise _HandedOver

        self._pipe.vae.decode = decode
        try:
            yield handed
        finally:
            del self._pipe.vae.decode


class _HandedOver(Exception):
    """The pipeline has reached its VAE."""


def _checked(handed: list[Latents], spec: DenoiseSpec) -> Latents:
    if not handed:
        raise Final("the pipeline ended without decoding")
    latents = handed[0]
    if latents.outputs != len(spec.seeds):
        raise Final(f"the pipeline decodes {latents.outputs} samples at once, not {len(spec.seeds)}")
    if not torch.isfinite(latents.z).all():
        raise Final("denoising overflowed: the latents are not numbers; use --dit-precision bf16 or fp32")
    return latents


@contextmanager
def _memory_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        # The failed allocation's neighbours are free but cached in sizes that may not fit the next request.
        torch.cuda.empty_cache()
        raise DeviceOutOfMemory(f"the device ran out of memory while {doing}") from error
