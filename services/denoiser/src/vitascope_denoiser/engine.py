"""The engine: a stock diffusers pipeline, run step by step under a hook, and split from its VAE."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from vitascope_core.errors import DeviceOutOfMemory, Final
from vitascope_core.job import DenoiseSpec
from vitascope_core.ports import Control
from vitascope_denoiser.call import Call
from vitascope_denoiser.card import check_served
from vitascope_denoiser.cutting import Cuts, cut
from vitascope_denoiser.decoding import Latents, VaeDecoder, to_frames
from vitascope_denoiser.denoising_loop import unhooked
from vitascope_denoiser.fingerprint import for_job
from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.preview import predicted, with_latents
from vitascope_denoiser.snapshot import Snapshot, State, loads
from vitascope_denoiser.stepping import Steps
from vitascope_frames.checkpoints import preview_steps
from vitascope_frames.chunk import Chunk, Frames

log = logging.getLogger(__name__)

_PIPELINE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What pipelines raise for arguments and tensors that do not fit together."""


class Attempt(Protocol):
    """What a run of a job takes from the one before, and leaves to the next. No method may keep the steps waiting."""

    @property
    def checkpoint(self) -> bytes | None:
        """Where to go on; None to begin at the beginning."""

    def resumed(self, step: int, seconds: float) -> None:
        """Learn that the run goes on behind this step, which took so long with all before it."""

    def refused(self, why: str) -> None:
        """Learn that the run begins at the beginning although there is a checkpoint."""

    def reached(self, snapshot: Snapshot) -> None:
        """Take the state after a step."""

    def denoised(self, step: int) -> None:
        """Learn that there are no steps behind this one: the state that was taken last is the final one."""

    def preview(self, index: int, frames: Frames) -> None:
        """Take a preview, uint8 (1, H, W, C)."""


class Unkept:
    """An attempt of a job without checkpoints."""

    checkpoint: bytes | None = None

    def resumed(self, step: int, seconds: float) -> None:
        """Do nothing."""

    def refused(self, why: str) -> None:
        """Do nothing."""

    def reached(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def denoised(self, step: int) -> None:
        """Do nothing."""

    def preview(self, index: int, frames: Frames) -> None:
        """Do nothing."""


class DiffusersEngine:
    """Denoises and decodes with a loaded pipeline.

    `denoise` is for one thread at a time, because pipelines keep a request's state; `decode` too; but one thread may
    decode while another denoises.
    """

    def __init__(self, pipe: Any, fingerprint: Mapping[str, str] | None = None) -> None:
        """Take over a loaded pipeline.

        Args:
            pipe: The pipeline.
            fingerprint: What has to be equal for a checkpoint to be used (`vitascope_denoiser.fingerprint`); None to
                make and use no checkpoints.

        Raises:
            InvalidModel: It cannot be driven from a text alone, with progress and cancellation.
        """
        self._pipe = pipe
        self._fingerprint = fingerprint
        self._call = Call(pipe)
        check_served(pipe, self._call)
        self._vae = VaeDecoder(pipe.vae)
        processor = getattr(pipe, "video_processor", None) or getattr(pipe, "image_processor", None)
        self._signed = processor is None or bool(processor.config.get("do_normalize", True))

    def denoise(
        self, specs: Sequence[DenoiseSpec], controls: Sequence[Control], attempts: Sequence[Attempt] | None = None
    ) -> list[Latents]:
        """Return the latents of each spec, its outputs as a batch.

        Every output has a generator of its own on the CPU, so that its noise depends on its seed alone: not on the
        batch and not on the device. The networks may round differently for other batch sizes (some 1e-6 in fp32).
        Specs are run one after the other.

        Args:
            specs: What to make.
            controls: One for each spec: ticked before the first and after every step.
            attempts: One for each spec, where checkpoints and previews go and come from; None for no such.

        Raises:
            Stopped: From a control; the pipeline is clean and takes the next request.
            DeviceOutOfMemory: As it says; another worker may have more.
            Final: The model made values that are not numbers.
        """
        attempts = attempts or [Unkept()] * len(specs)
        return [self._denoise(*each) for each in zip(specs, controls, attempts, strict=True)]

    @torch.no_grad()  # the pipelines' own does not cover all of them, and it belongs to a thread
    def _denoise(self, spec: DenoiseSpec, control: Control, attempt: Attempt) -> Latents:
        control.tick()
        if (checkpoint := attempt.checkpoint) is not None:
            try:
                return self._run(spec, control, attempt, self._state_of(spec, checkpoint))
            except NotResumable as error:
                attempt.refused(str(error))
        return self._run(spec, control, attempt, None)

    def _state_of(self, spec: DenoiseSpec, checkpoint: bytes) -> State:
        if self._fingerprint is None:
            raise NotResumable("this model does not go on from checkpoints")
        return loads(checkpoint, for_job(self._fingerprint, spec), torch.device(self._pipe._execution_device))

    def _run(self, spec: DenoiseSpec, control: Control, attempt: Attempt, resume: State | None) -> Latents:
        """Call the pipeline up to its VAE. Raises NotResumable if it does not get to where it is to go on."""
        fingerprint = None if self._fingerprint is None else for_job(self._fingerprint, spec)

        def on_step(steps: Steps) -> None:
            goes_on = resume is not None and steps.done == resume.step
            if resume is not None and goes_on:
                attempt.resumed(resume.step, resume.seconds)
            if fingerprint is not None and (snapshot := steps.snapshot(fingerprint)) is not None:
                attempt.reached(snapshot)
            control.tick(steps.done, steps.total)
            if spec.previews and not goes_on:
                self._preview(spec, steps, attempt)

        # Some schedulers draw noise without being given a generator: it must depend on the job alone.
        torch.manual_seed(spec.seeds[0])
        generators = _generators(spec)
        steps = Steps(self._pipe, generators, on_step, resume=resume)
        with self._vae_split_off() as handed, _memory_errors("denoising"):
            try:
                with _replay_errors(steps), steps:
                    self._pipe(**self._call.arguments(spec), generator=generators, output_type="pt")
            except _HandedOver:
                pass
            finally:
                # Offload hooks and step caches keep the state of a run that did not reach its end.
                self._pipe.maybe_free_model_hooks()
            if steps.replaying:
                raise NotResumable("the pipeline took fewer steps than the checkpoint has")
            latents = _checked(handed, spec)
        attempt.denoised(steps.done)
        return latents

    def _preview(self, spec: DenoiseSpec, steps: Steps, attempt: Attempt) -> None:
        """Make a preview if one belongs behind this step.

        The pipeline's own tail turns latents into what its VAE takes: a copy of it runs with the prediction in place of
        its only step's result, its networks skipped. The run itself is not touched.
        """
        due = preview_steps(steps.total, spec.previews)
        if steps.done not in due:
            return
        clean = predicted(steps.main)
        if clean is None:
            log.warning("no preview", extra={"reason": "the scheduler tells no prediction of the clean latents"})
            return
        state = steps.preview_state(with_latents(steps.main.output, clean))
        copied, generators = unhooked(self._pipe), _generators(spec)
        device = torch.device(self._pipe._execution_device)
        inner = Steps(copied, generators, lambda _: None, resume=state, only_first=True)
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                with self._vae_split_off() as handed:
                    try:
                        with inner:
                            copied(**self._call.arguments(spec), generator=generators, output_type="pt")
                    except _HandedOver:
                        pass
                frames = self._first_frame(_checked(handed, spec))
        except (NotResumable, Final, DeviceOutOfMemory, *_PIPELINE_ERRORS) as error:
            if isinstance(error, torch.AcceleratorError):
                raise
            log.warning("no preview", extra={"reason": str(error)})
        else:
            attempt.preview(due.index(steps.done), frames)

    def _first_frame(self, latents: Latents) -> Frames:
        first = latents.sample(0)
        if first.z.ndim == 5:
            first = Latents(first.z[:, :, :1], first.args, first.kwargs)
        return next(self._frames(first))[:1]

    @torch.no_grad()
    def decode(self, latents: Latents, cuts: Cuts, skip: frozenset[int] = frozenset()) -> Iterator[Chunk]:
        """Yield the chunks of every output, output by output, so that memory holds the pixels of one chunk.

        Args:
            latents: From `denoise`.
            cuts: Where to cut.
            skip: Outputs that are left out.

        Raises:
            DeviceOutOfMemory: As it says.
            Final: The frames are not as many as the cuts, or not numbers.
        """
        for output in sorted(set(range(latents.outputs)) - skip):
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

        vae = self._pipe.vae
        outer = vars(vae).get("decode")
        vae.decode = decode
        try:
            yield handed
        finally:
            if outer is None:
                del vae.decode
            else:
                vae.decode = outer


class _HandedOver(Exception):
    """The pipeline has reached its VAE."""


def _generators(spec: DenoiseSpec) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in spec.seeds]


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
def _replay_errors(steps: Steps) -> Iterator[None]:
    """Take what a pipeline raises before it got to its checkpoint's step for the checkpoint's fault."""
    try:
        yield
    except _PIPELINE_ERRORS as error:
        if not steps.replaying or isinstance(error, torch.AcceleratorError):
            raise
        raise NotResumable(f"the pipeline did not get to its step: {error}") from error


@contextmanager
def _memory_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        # The failed allocation's neighbours are free but cached in sizes that may not fit the next request.
        torch.cuda.empty_cache()
        raise DeviceOutOfMemory(f"the device ran out of memory while {doing}") from error
