from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InterpolateOptions(_message.Message):
    __slots__ = ("exp", "scale", "model_path")
    EXP_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    exp: int
    scale: float
    model_path: str
    def __init__(self, exp: _Optional[int] = ..., scale: _Optional[float] = ..., model_path: _Optional[str] = ...) -> None: ...

class UpscaleOptions(_message.Message):
    __slots__ = ("model_path", "scale")
    MODEL_PATH_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    model_path: str
    scale: float
    def __init__(self, model_path: _Optional[str] = ..., scale: _Optional[float] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("source", "interpolate", "upscale")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATE_FIELD_NUMBER: _ClassVar[int]
    UPSCALE_FIELD_NUMBER: _ClassVar[int]
    source: str
    interpolate: InterpolateOptions
    upscale: UpscaleOptions
    def __init__(self, source: _Optional[str] = ..., interpolate: _Optional[_Union[InterpolateOptions, _Mapping]] = ..., upscale: _Optional[_Union[UpscaleOptions, _Mapping]] = ...) -> None: ...

class DenoiseSpec(_message.Message):
    __slots__ = ("prompt", "negative_prompt", "width", "height", "num_frames", "num_inference_steps", "guidance_scale", "guidance_scale_2", "seeds", "previews")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_2_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    guidance_scale_2: float
    seeds: _containers.RepeatedScalarFieldContainer[int]
    previews: int
    def __init__(self, prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., num_frames: _Optional[int] = ..., num_inference_steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., guidance_scale_2: _Optional[float] = ..., seeds: _Optional[_Iterable[int]] = ..., previews: _Optional[int] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("width", "height", "fps", "frames", "audio")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    fps: str
    frames: int
    audio: str
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., fps: _Optional[str] = ..., frames: _Optional[int] = ..., audio: _Optional[str] = ...) -> None: ...

class IngestSpec(_message.Message):
    __slots__ = ("key", "name", "size", "video_id", "known", "chunk_frames", "field", "max_pixels")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_ID_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    key: str
    name: str
    size: int
    video_id: str
    known: Media
    chunk_frames: int
    field: str
    max_pixels: int
    def __init__(self, key: _Optional[str] = ..., name: _Optional[str] = ..., size: _Optional[int] = ..., video_id: _Optional[str] = ..., known: _Optional[_Union[Media, _Mapping]] = ..., chunk_frames: _Optional[int] = ..., field: _Optional[str] = ..., max_pixels: _Optional[int] = ...) -> None: ...

class OutputSpec(_message.Message):
    __slots__ = ("format", "compression")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    format: str
    compression: int
    def __init__(self, format: _Optional[str] = ..., compression: _Optional[int] = ...) -> None: ...

class JobSpec(_message.Message):
    __slots__ = ("schema_version", "id", "kind", "pool", "model", "owner", "created_ms", "deadline_ms", "denoise", "cuts", "output", "fps", "plan", "result_ttl_s", "traceparent", "ingest")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    RESULT_TTL_S_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    INGEST_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    kind: str
    pool: str
    model: str
    owner: str
    created_ms: int
    deadline_ms: int
    denoise: DenoiseSpec
    cuts: _containers.RepeatedScalarFieldContainer[int]
    output: OutputSpec
    fps: str
    plan: Plan
    result_ttl_s: int
    traceparent: str
    ingest: IngestSpec
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., kind: _Optional[str] = ..., pool: _Optional[str] = ..., model: _Optional[str] = ..., owner: _Optional[str] = ..., created_ms: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., denoise: _Optional[_Union[DenoiseSpec, _Mapping]] = ..., cuts: _Optional[_Iterable[int]] = ..., output: _Optional[_Union[OutputSpec, _Mapping]] = ..., fps: _Optional[str] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., result_ttl_s: _Optional[int] = ..., traceparent: _Optional[str] = ..., ingest: _Optional[_Union[IngestSpec, _Mapping]] = ...) -> None: ...

class CheckpointRecord(_message.Message):
    __slots__ = ("attempt", "key", "step", "seconds", "digest")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    key: str
    step: int
    seconds: float
    digest: str
    def __init__(self, attempt: _Optional[int] = ..., key: _Optional[str] = ..., step: _Optional[int] = ..., seconds: _Optional[float] = ..., digest: _Optional[str] = ...) -> None: ...

class SourceRecord(_message.Message):
    __slots__ = ("schema_version", "attempt", "owner", "state", "beat", "step", "steps", "chunks", "crashes", "best_chunks", "started_ms", "seconds", "error", "checkpoint", "best_step", "resumed_step", "reached_step", "computed_steps", "saved_seconds", "previews", "media")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    CRASHES_FIELD_NUMBER: _ClassVar[int]
    BEST_CHUNKS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    BEST_STEP_FIELD_NUMBER: _ClassVar[int]
    RESUMED_STEP_FIELD_NUMBER: _ClassVar[int]
    REACHED_STEP_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    attempt: int
    owner: str
    state: str
    beat: int
    step: int
    steps: int
    chunks: _containers.RepeatedScalarFieldContainer[int]
    crashes: int
    best_chunks: int
    started_ms: int
    seconds: float
    error: str
    checkpoint: CheckpointRecord
    best_step: int
    resumed_step: int
    reached_step: int
    computed_steps: int
    saved_seconds: float
    previews: int
    media: Media
    def __init__(self, schema_version: _Optional[int] = ..., attempt: _Optional[int] = ..., owner: _Optional[str] = ..., state: _Optional[str] = ..., beat: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., chunks: _Optional[_Iterable[int]] = ..., crashes: _Optional[int] = ..., best_chunks: _Optional[int] = ..., started_ms: _Optional[int] = ..., seconds: _Optional[float] = ..., error: _Optional[str] = ..., checkpoint: _Optional[_Union[CheckpointRecord, _Mapping]] = ..., best_step: _Optional[int] = ..., resumed_step: _Optional[int] = ..., reached_step: _Optional[int] = ..., computed_steps: _Optional[int] = ..., saved_seconds: _Optional[float] = ..., previews: _Optional[int] = ..., media: _Optional[_Union[Media, _Mapping]] = ...) -> None: ...

class ChunkRecord(_message.Message):
    __slots__ = ("schema_version", "attempt", "stage", "output", "index", "key", "start", "frames", "last", "segment", "size", "seconds", "fps")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    attempt: int
    stage: str
    output: int
    index: int
    key: str
    start: int
    frames: int
    last: bool
    segment: bool
    size: int
    seconds: float
    fps: str
    def __init__(self, schema_version: _Optional[int] = ..., attempt: _Optional[int] = ..., stage: _Optional[str] = ..., output: _Optional[int] = ..., index: _Optional[int] = ..., key: _Optional[str] = ..., start: _Optional[int] = ..., frames: _Optional[int] = ..., last: _Optional[bool] = ..., segment: _Optional[bool] = ..., size: _Optional[int] = ..., seconds: _Optional[float] = ..., fps: _Optional[str] = ...) -> None: ...

class FileRecord(_message.Message):
    __slots__ = ("output", "variant", "key", "content_type", "size", "width", "height", "frames", "fps", "columns")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    output: int
    variant: str
    key: str
    content_type: str
    size: int
    width: int
    height: int
    frames: int
    fps: str
    columns: int
    def __init__(self, output: _Optional[int] = ..., variant: _Optional[str] = ..., key: _Optional[str] = ..., content_type: _Optional[str] = ..., size: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., frames: _Optional[int] = ..., fps: _Optional[str] = ..., columns: _Optional[int] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("seconds", "queue_seconds", "attempts", "frames", "bytes", "repeated_steps", "saved_seconds")
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    REPEATED_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAVED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: _containers.ScalarMap[str, float]
    queue_seconds: float
    attempts: int
    frames: int
    bytes: int
    repeated_steps: int
    saved_seconds: float
    def __init__(self, seconds: _Optional[_Mapping[str, float]] = ..., queue_seconds: _Optional[float] = ..., attempts: _Optional[int] = ..., frames: _Optional[int] = ..., bytes: _Optional[int] = ..., repeated_steps: _Optional[int] = ..., saved_seconds: _Optional[float] = ...) -> None: ...

class JobEnd(_message.Message):
    __slots__ = ("schema_version", "state", "token", "at_ms", "code", "message", "files", "usage")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    state: str
    token: str
    at_ms: int
    code: str
    message: str
    files: _containers.RepeatedCompositeFieldContainer[FileRecord]
    usage: Usage
    def __init__(self, schema_version: _Optional[int] = ..., state: _Optional[str] = ..., token: _Optional[str] = ..., at_ms: _Optional[int] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., files: _Optional[_Iterable[_Union[FileRecord, _Mapping]]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("schema_version", "job_id", "stage", "pool", "attempt", "output", "index")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    job_id: str
    stage: str
    pool: str
    attempt: int
    output: int
    index: int
    def __init__(self, schema_version: _Optional[int] = ..., job_id: _Optional[str] = ..., stage: _Optional[str] = ..., pool: _Optional[str] = ..., attempt: _Optional[int] = ..., output: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("low", "high", "multiple")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    low: int
    high: int
    multiple: int
    def __init__(self, low: _Optional[int] = ..., high: _Optional[int] = ..., multiple: _Optional[int] = ...) -> None: ...

class Defaults(_message.Message):
    __slots__ = ("width", "height", "num_inference_steps", "num_frames", "fps", "guidance_scale", "guidance_scale_2", "negative_prompt")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_2_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    num_inference_steps: int
    num_frames: int
    fps: str
    guidance_scale: float
    guidance_scale_2: float
    negative_prompt: str
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., num_inference_steps: _Optional[int] = ..., num_frames: _Optional[int] = ..., fps: _Optional[str] = ..., guidance_scale: _Optional[float] = ..., guidance_scale_2: _Optional[float] = ..., negative_prompt: _Optional[str] = ...) -> None: ...

class ModelCard(_message.Message):
    __slots__ = ("pool", "id", "modes", "width", "height", "num_frames", "num_inference_steps", "defaults", "aliases", "honours", "max_outputs", "max_pixels", "max_prompt_chars", "created", "pipeline", "note", "resumable")
    POOL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_INFERENCE_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    HONOURS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_CHARS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    pool: str
    id: str
    modes: _containers.RepeatedScalarFieldContainer[str]
    width: Limits
    height: Limits
    num_frames: Limits
    num_inference_steps: Limits
    defaults: Defaults
    aliases: _containers.RepeatedScalarFieldContainer[str]
    honours: _containers.RepeatedScalarFieldContainer[str]
    max_outputs: int
    max_pixels: int
    max_prompt_chars: int
    created: int
    pipeline: str
    note: str
    resumable: bool
    def __init__(self, pool: _Optional[str] = ..., id: _Optional[str] = ..., modes: _Optional[_Iterable[str]] = ..., width: _Optional[_Union[Limits, _Mapping]] = ..., height: _Optional[_Union[Limits, _Mapping]] = ..., num_frames: _Optional[_Union[Limits, _Mapping]] = ..., num_inference_steps: _Optional[_Union[Limits, _Mapping]] = ..., defaults: _Optional[_Union[Defaults, _Mapping]] = ..., aliases: _Optional[_Iterable[str]] = ..., honours: _Optional[_Iterable[str]] = ..., max_outputs: _Optional[int] = ..., max_pixels: _Optional[int] = ..., max_prompt_chars: _Optional[int] = ..., created: _Optional[int] = ..., pipeline: _Optional[str] = ..., note: _Optional[str] = ..., resumable: _Optional[bool] = ...) -> None: ...

class StageCard(_message.Message):
    __slots__ = ("stage", "exps", "flow_scales", "models", "scales", "max_pixels")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    EXPS_FIELD_NUMBER: _ClassVar[int]
    FLOW_SCALES_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    exps: _containers.RepeatedScalarFieldContainer[int]
    flow_scales: _containers.RepeatedScalarFieldContainer[float]
    models: _containers.RepeatedScalarFieldContainer[str]
    scales: _containers.RepeatedScalarFieldContainer[float]
    max_pixels: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, stage: _Optional[str] = ..., exps: _Optional[_Iterable[int]] = ..., flow_scales: _Optional[_Iterable[float]] = ..., models: _Optional[_Iterable[str]] = ..., scales: _Optional[_Iterable[float]] = ..., max_pixels: _Optional[_Iterable[int]] = ...) -> None: ...
