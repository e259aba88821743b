"""A job and its records: the spec, the source's record, the chunks, the end.

Each record has one writer and one key (DESIGN section 8). All are frozen: a change is a new record.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from vitascope_core.plan import Plan, StageName

SCHEMA_VERSION = 1
"""Version of the records and tasks that this code writes."""


class JobKind(StrEnum):
    """What the client asked for; also the prefix of the job's id and its OpenAI object type."""

    IMAGE = "image"
    VIDEO = "video"


class SourceState(StrEnum):
    """Where the source stage of a job stands."""

    RUNNING = "running"
    FAILED = "failed"
    """The attempt raised; its worker lives and said so."""
    HANDED_BACK = "handed_back"
    DECODED = "decoded"


class EndState(StrEnum):
    """The three ways a job ends."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class DenoiseSpec:
    """Everything the denoiser needs; defaults filled in from the pool's card.

    Attributes:
        width: Pixels, as generated (before upscaling).
        height: Pixels, as generated.
        num_frames: Frames an output has before interpolation; 1 for images.
        guidance_scale: None where the model has no such parameter.
        guidance_scale_2: Guidance of the second transformer; None where there is none or to follow the first.
        seeds: One per output, 0 to 2**63 - 1: sample i is the same whether made alone or in a batch.
        previews: Intermediate pictures of the first output to show on the way, evenly over the steps.
    """

    prompt: str
    width: int
    height: int
    num_inference_steps: int
    seeds: tuple[int, ...]
    num_frames: int = 1
    negative_prompt: str = ""
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    previews: int = 0


NO_DENOISING = DenoiseSpec(prompt="", width=0, height=0, num_inference_steps=0, seeds=(0,), num_frames=0)
"""What stands in the spec of a job whose frames are read from a file."""


@dataclass(frozen=True, slots=True)
class Media:
    """What is known of a file with pictures.

    Attributes:
        width: Pixels as shown: upright, and square.
        height: Pixels as shown.
        fps: Frames a second, constant; 0 of a still picture.
        frames: How many there are; an estimate until the last one was read, 0 without any.
        audio: Object of its sound in the frames store; "" if it has none.
    """

    width: int
    height: int
    fps: Fraction
    frames: int = 0
    audio: str = ""


@dataclass(frozen=True, slots=True)
class IngestSpec:
    """The file that a job's frames are read from.

    Attributes:
        key: Object in the frames store.
        name: What the client called it: for people, never for a path.
        size: Bytes.
        video_id: The job whose finished file it is a copy of; "" for one that a client sent.
        known: What was known of it when the job was accepted; None for one that a client sent.
        chunk_frames: Frames of a chunk; 0 for as many as `vitascope_core.geometry.chunk_length` says.
        field: What the client may change to send another: errors about the file name it.
        max_pixels: Bound on width * height of a frame, which a later stage has no memory for beyond; 0 for none.
    """

    key: str
    name: str = ""
    size: int = 0
    video_id: str = ""
    known: Media | None = None
    chunk_frames: int = 0
    field: str = "video"
    max_pixels: int = 0


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How the finished files are encoded.

    Attributes:
        format: "mp4", "png", "jpeg" or "webp".
        compression: 0 to 100 after the quality table (see `vitascope_core.quality`).
    """

    format: str
    compression: int


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The immutable record of a job: everything needed to compute it.

    Attributes:
        model: The model id as the client wrote it, else the card's.
        owner: Who may see the job; "" where keys are not used.
        fps: Frames a second of an output before interpolation; 0 where the file says it.
        denoise: What to denoise; `NO_DENOISING` for a job whose frames are read from a file.
        cuts: Frames of each chunk as the source makes them; they add up to ``denoise.num_frames``. None where frames
            are read from a file: nobody knows how many it has before the last one was read.
        deadline_ms: Wall-clock milliseconds after which the job ends as failed.
        result_ttl_s: Seconds that the results are kept after the end.
        traceparent: W3C trace context of the request, which the spans of all stages continue; "" if there is none.
        ingest: The file to read; None for a job whose frames are denoised.
    """

    id: str
    kind: JobKind
    pool: str
    model: str
    created_ms: int
    deadline_ms: int
    denoise: DenoiseSpec
    cuts: tuple[int, ...]
    output: OutputSpec
    fps: Fraction = Fraction(16)
    plan: Plan = field(default_factory=Plan)
    owner: str = ""
    result_ttl_s: int = 7 * 24 * 3600
    traceparent: str = ""
    ingest: IngestSpec | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def outputs(self) -> int:
        """Number of pictures or videos that the job makes."""
        return len(self.denoise.seeds)

    @property
    def out_frames(self) -> int | None:
        """Frames of each finished file; None where they are read from a file, which is counted by reading it."""
        if self.ingest is not None:
            return None
        return (self.denoise.num_frames - 1) * self.plan.frame_factor + 1

    @property
    def out_fps(self) -> Fraction | None:
        """Frames a second of each finished file; a single frame has nothing to interpolate.

        None where frames are read from a file: its chunks say it.
        """
        if self.ingest is not None:
            return None
        return self.fps * (self.plan.frame_factor if self.denoise.num_frames > 1 else 1)


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A stored checkpoint: where the next attempt may go on.

    Attributes:
        attempt: Which one wrote it.
        key: Object in the frames store.
        step: Denoising steps done.
        seconds: What these steps took, over all attempts.
        digest: SHA-256 of the object, in hex.
    """

    attempt: int
    key: str
    step: int
    seconds: float
    digest: str


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """The claim on the source stage, fenced by compare-and-set.

    Attributes:
        attempt: Number of this run, from 1.
        owner: Token of the claim, fresh for each.
        beat: Grows with every heartbeat, so that others see the owner live.
        step: Denoising steps done, of ``steps``.
        chunks: Number of chunks of each output, once decoded.
        crashes: Attempts in a row that ended without hand-back and without progress.
        best_chunks: The most chunks that any earlier attempt recorded: what counts as progress.
        started_ms: When the job's first attempt was claimed, wall-clock milliseconds, for people only.
        seconds: Time that the attempt took, once decoded.
        error: What ended this attempt, or the last one that failed.
        checkpoint: The newest one, of this attempt or an earlier one.
        best_step: The furthest checkpoint of any earlier attempt: what counts as progress beside the chunks.
        resumed_step: Where this attempt went on; 0 when it began at the beginning.
        reached_step: The furthest that any earlier attempt was seen to get.
        computed_steps: Steps that earlier attempts computed, together.
        saved_seconds: What all resumes together saved, against beginning anew each time.
        previews: Intermediate pictures that this attempt has stored.
        media: What the source found in the file that it reads; None before, and where frames are denoised.
    """

    attempt: int
    owner: str
    state: SourceState = SourceState.RUNNING
    beat: int = 0
    step: int = 0
    steps: int = 0
    chunks: tuple[int, ...] = ()
    crashes: int = 0
    best_chunks: int = 0
    started_ms: int = 0
    seconds: float = 0.0
    error: str = ""
    checkpoint: CheckpointRecord | None = None
    best_step: int = 0
    resumed_step: int = 0
    reached_step: int = 0
    computed_steps: int = 0
    saved_seconds: float = 0.0
    previews: int = 0
    media: Media | None = None
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """One stored chunk. Identity: (job, attempt, stage, output, index).

    Attributes:
        key: Object in the frames store.
        start: Number of its first frame in its output.
        frames: Frames it holds.
        last: Whether it is the last of its output.
        segment: Whether the object is an encoded segment rather than raw frames.
        size: Bytes of the object.
        seconds: Time that the stage took for it.
        fps: Frames a second of what it holds; 0 in records of before this was written.
    """

    attempt: int
    stage: StageName
    output: int
    index: int
    key: str
    start: int
    frames: int
    last: bool
    segment: bool = False
    size: int = 0
    seconds: float = 0.0
    fps: Fraction = Fraction(0)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One finished file in the results store.

    Attributes:
        output: Which of the job's outputs.
        variant: "video", "image", "thumbnail" or "spritesheet".
        width: Pixels of the file itself (after upscaling and padding to even).
        frames: Pictures it holds; tiles for a spritesheet.
        fps: Frames a second; 0 where there is no time.
        columns: Tiles in a row of a spritesheet, else 0.
    """

    output: int
    variant: str
    key: str
    content_type: str
    size: int
    width: int
    height: int
    frames: int = 1
    fps: Fraction = Fraction(0)
    columns: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the job cost.

    Attributes:
        seconds: Wall seconds spent in each stage, over all chunks.
        queue_seconds: From creation to the first claim.
        attempts: Runs of the source stage.
        frames: Frames in the finished files.
        bytes: Bytes of the finished files.
        repeated_steps: Denoising steps that were computed more than once, because an attempt ended between checkpoints.
        saved_seconds: Denoising that checkpoints spared, against beginning anew after each interruption.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    queue_seconds: float = 0.0
    attempts: int = 0
    frames: int = 0
    bytes: int = 0
    repeated_steps: int = 0
    saved_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How the job ended; created once, never changed.

    Attributes:
        token: Who created it: the upload delivery's token, or a fresh one.
        code: Stable error code of a failed or cancelled job.
    """

    state: EndState
    token: str
    at_ms: int
    code: str = ""
    message: str = ""
    files: tuple[FileRecord, ...] = ()
    usage: Usage = field(default_factory=Usage)
    schema_version: int = SCHEMA_VERSION


def new_token() -> str:
    """Return a fresh token for a claim, a delivery or an end."""
    return secrets.token_hex(8)


def new_job_id(kind: JobKind, now_ns: int) -> str:
    """Return ``video_…`` or ``img_…`` followed by a UUIDv7 in hex, so that ids sort by creation.

    Args:
        kind: Decides the prefix.
        now_ns: Wall clock in nanoseconds since 1970.

    Source: RFC 9562 section 5.7, with the sub-millisecond fraction of section 6.2, method 3.
    """
    milliseconds, rest = divmod(now_ns, 1_000_000)
    fraction = rest * 4096 // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"{_PREFIXES[kind]}_{value:032x}"


_PREFIXES = {JobKind.VIDEO: "video", JobKind.IMAGE: "img"}


def kind_of(job_id: str) -> JobKind:
    """Return the kind that a job's id names."""
    return JobKind.IMAGE if job_id.startswith("img_") else JobKind.VIDEO
