"""A source that reads a file: what it finds reaches its record, those behind it, and the next attempt."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from stage_bench import StageBench

from vitascope_core.errors import DamagedMedia
from vitascope_core.handling import Work
from vitascope_core.job import NO_DENOISING, IngestSpec, JobSpec, Media, SourceRecord, SourceState
from vitascope_core.plan import Plan, StageName
from vitascope_platform.attempts import next_attempt
from vitascope_platform.clock import ManualClock

MEDIA = Media(64, 48, Fraction(24), 9, "jobs/video_1/1/audio-0")


@pytest.fixture
def of_file(spec: JobSpec) -> JobSpec:
    ingest = IngestSpec("jobs/video_1/inputs/0")
    return replace(spec, denoise=NO_DENOISING, fps=Fraction(0), plan=Plan(StageName.INGEST), ingest=ingest)


@pytest.fixture
def ingest(of_file: JobSpec, clock: ManualClock) -> StageBench:
    return StageBench(StageName.INGEST, of_file, clock)


async def test_what_the_source_finds_is_in_its_record(ingest: StageBench) -> None:
    async def opens(work: Work) -> None:
        assert work.log is not None
        assert await work.log.opened(MEDIA)

    ingest.handler.before = opens
    await ingest.accepted()
    await ingest.settle()
    found = await ingest.jobs.source("video_1")

    assert found is not None
    assert (found.record.media, found.record.state) == (MEDIA, SourceState.DECODED)


async def test_the_upload_is_told_what_the_source_found(of_file: JobSpec, clock: ManualClock) -> None:
    upload = StageBench(StageName.UPLOAD, of_file, clock)
    await upload.accepted(SourceRecord(1, "o", SourceState.DECODED, chunks=(2,), media=MEDIA))
    await upload.put_source_chunks()
    await upload.settle()

    assert [work.media for work in upload.handler.runs] == [MEDIA]


async def test_a_file_that_cannot_be_used_ends_its_job_at_the_first_delivery(ingest: StageBench) -> None:
    async def breaks_off(_: Work) -> None:
        raise DamagedMedia("the file breaks off")

    ingest.handler.before = breaks_off
    await ingest.accepted()
    await ingest.settle()
    end = await ingest.jobs.end("video_1")

    assert end is not None
    assert (end.code, end.message) == ("damaged_media", "the file breaks off")
    assert (len(ingest.handler.runs), await ingest.bus.count("video_1")) == (1, 0)


def test_the_next_attempt_still_knows_the_size_but_has_no_sound_yet() -> None:
    assert next_attempt(SourceRecord(1, "o", media=MEDIA), 0, "t", 0).media == replace(MEDIA, audio="")
