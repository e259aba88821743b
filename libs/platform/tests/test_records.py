"""Records survive their messages, and neighbouring versions read each other's."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction

import pytest
from google.protobuf import json_format

from vitascope_core.card import Defaults, Limits, Mode, ModelCard, StageCard
from vitascope_core.job import (
    NO_DENOISING,
    ChunkRecord,
    EndState,
    FileRecord,
    IngestSpec,
    JobEnd,
    JobSpec,
    Media,
    SourceRecord,
    SourceState,
    Usage,
)
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_core.task import Task
from vitascope_platform.records import MESSAGES, BadRecord, from_bytes, from_json, to_bytes, to_json
from vitascope_platform.v1 import records_pb2

LIMITS = Limits(16, 1024, 16)
RECORDS = [
    SourceRecord(2, "t", SourceState.DECODED, 5, 3, 4, (3, 3), 1, 2, 123, 1.5, "boom"),
    SourceRecord(1, "t", media=Media(64, 48, Fraction(24000, 1001), 9, "jobs/video_1/1/audio-0")),
    ChunkRecord(1, StageName.UPSCALE, 0, 3, "k", 12, 4, True, True, 99, 0.25, Fraction(24000, 1001)),
    JobEnd(
        EndState.COMPLETED,
        "t",
        1,
        files=(FileRecord(0, "video", "k", "video/mp4", 7, 64, 48, 9, Fraction(24000, 1001), 0),),
        usage=Usage({"denoise": 1.5}, 0.5, 1, 9, 7),
    ),
    Task("video_1", StageName.DENOISE, "wan", 1, 2, 3),
    ModelCard(
        "p", "org/m", (Mode.TEXT_TO_VIDEO,), LIMITS, LIMITS, Limits(1, 81, 4), Limits(1, 100), Defaults(64, 64, 4)
    ),
    StageCard(StageName.INTERPOLATE, (1, 2), (0.5, 1.0), (), ("org/rife", "/weights")),
    StageCard(StageName.UPSCALE, (), (), (1.5, 4.0), ("org/esrgan",), (2**33, 7)),
]


@pytest.fixture
def full(spec: JobSpec) -> JobSpec:
    plan = Plan(StageName.DENOISE, InterpolateOptions(2, 0.5, "w"), UpscaleOptions(2))
    denoise = dataclasses.replace(spec.denoise, seeds=(2**63 - 1, 0), guidance_scale=0.0)
    return dataclasses.replace(spec, plan=plan, denoise=denoise, fps=Fraction(24000, 1001), owner="me")


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_survives_both_forms(record) -> None:
    assert from_json(type(record), to_json(record)) == record
    assert from_bytes(type(record), to_bytes(record)) == record


def test_a_spec_survives_both_forms(full: JobSpec) -> None:
    assert from_json(JobSpec, to_json(full)) == full
    assert from_bytes(JobSpec, to_bytes(full)) == full


def test_a_spec_of_a_file_survives_both_forms(spec: JobSpec) -> None:
    known = Media(64, 48, Fraction(16), 9)
    ingest = IngestSpec("jobs/video_1/inputs/0", "clip.mp4", 2**40, "video_0", known, 5, "input", 2**33)
    of_file = dataclasses.replace(spec, denoise=NO_DENOISING, cuts=(), fps=Fraction(0), ingest=ingest)

    assert from_json(JobSpec, to_json(of_file)) == of_file
    assert from_bytes(JobSpec, to_bytes(of_file)) == of_file
    assert (of_file.outputs, of_file.out_frames, of_file.out_fps) == (1, None, None)


@pytest.mark.parametrize("scale", [2, 4.0, 1.5])
def test_a_scale_may_be_a_fraction(full: JobSpec, scale: float) -> None:
    spec = dataclasses.replace(full, plan=Plan(upscale=UpscaleOptions(scale, "w")))

    assert from_json(JobSpec, to_json(spec)) == spec
    assert from_bytes(JobSpec, to_bytes(spec)) == spec


def test_scales_of_the_version_before_are_read(full: JobSpec) -> None:
    older = json.loads(to_json(full))
    older["plan"]["upscale"] = {"scale": 4, "model_path": "w"}
    card = b'{"stage": "upscale", "scales": [2, 4], "models": ["org/esrgan"]}'

    assert from_json(JobSpec, json.dumps(older).encode()).plan.upscale == UpscaleOptions(4.0, "w")
    assert from_json(StageCard, card) == StageCard(StageName.UPSCALE, scales=(2.0, 4.0), models=("org/esrgan",))


def test_the_version_before_reads_whole_scales_of_this_one() -> None:
    written = json.loads(to_json(StageCard(StageName.UPSCALE, scales=(2.0, 4.0))))["scales"]
    # Both fields were whole numbers, as these still are.
    read = json_format.ParseDict({"exps": written}, records_pb2.StageCard())

    assert list(read.exps) == [2, 4]


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda k: k.__name__)
def test_message_and_dataclass_have_the_same_fields(kind) -> None:
    names = {field.name for field in dataclasses.fields(kind)}

    assert {f.name for f in MESSAGES[kind].DESCRIPTOR.fields} == names


def test_a_field_of_a_newer_version_is_ignored(spec: JobSpec) -> None:
    newer = json.loads(to_json(spec)) | {"from_the_future": {"a": 1}}

    assert from_json(JobSpec, json.dumps(newer).encode()) == spec


def test_a_field_that_an_older_version_did_not_write_gets_its_default(spec: JobSpec) -> None:
    older = json.loads(to_json(spec))
    del older["result_ttl_s"], older["plan"]

    assert (
        from_json(JobSpec, json.dumps(older).encode()).result_ttl_s
        == JobSpec.__dataclass_fields__["result_ttl_s"].default
    )


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"id": 5}', b'{"kind": "poem"}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(BadRecord):
        from_json(JobSpec, data)
