"""The job records: who wins, and how a lost answer is resolved."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vitascope_core.errors import BrokerUnavailable, Conflict
from vitascope_core.job import ChunkRecord, EndState, JobEnd, JobSpec, SourceRecord
from vitascope_core.plan import StageName
from vitascope_core.ports import KeyValue
from vitascope_platform.jobs import JobChange, JobStore


class LosesAnswers:
    """A bucket whose writes land although their answers are lost."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket
        self.losing = True

    def __getattr__(self, name: str):
        call = getattr(self._bucket, name)
        if name not in ("create", "update", "put") or not self.losing:
            return call

        async def lose(*args):
            await call(*args)
            raise BrokerUnavailable("timed out")

        return lose


@pytest.fixture
def jobs(bucket: KeyValue) -> JobStore:
    return JobStore(bucket)


def chunk(attempt: int = 1, index: int = 0) -> ChunkRecord:
    return ChunkRecord(attempt, StageName.DENOISE, 0, index, f"k{index}", index * 4, 4, last=index == 2)


def end(token: str, state: EndState = EndState.COMPLETED) -> JobEnd:
    return JobEnd(state, token, 1)


async def test_a_spec_is_created_once(jobs: JobStore, spec: JobSpec) -> None:
    await jobs.create_spec(spec)
    await jobs.create_spec(spec)

    with pytest.raises(Conflict):
        await jobs.create_spec(replace(spec, model="other"))
    assert await jobs.spec(spec.id) == spec


async def test_only_one_of_two_claims_wins(jobs: JobStore) -> None:
    await jobs.swap_source("video_1", SourceRecord(1, "mine"), None)

    with pytest.raises(Conflict):
        await jobs.swap_source("video_1", SourceRecord(1, "other"), None)


async def test_a_stale_claim_loses(jobs: JobStore) -> None:
    first = await jobs.swap_source("video_1", SourceRecord(1, "mine"), None)
    await jobs.swap_source("video_1", SourceRecord(2, "other"), first)

    with pytest.raises(Conflict):
        await jobs.swap_source("video_1", SourceRecord(1, "mine", beat=1), first)


async def test_the_first_end_stands(jobs: JobStore) -> None:
    first = await jobs.create_end("video_1", end("a"))
    second = await jobs.create_end("video_1", end("b", EndState.CANCELLED))

    assert (first.token, second.token) == ("a", "a")


async def test_a_write_whose_answer_was_lost_is_recognised_when_repeated(bucket: KeyValue, spec: JobSpec) -> None:
    lossy = LosesAnswers(bucket)
    jobs = JobStore(lossy)
    claim = SourceRecord(1, "mine")
    for write in (
        lambda: jobs.create_spec(spec),
        lambda: jobs.swap_source(spec.id, claim, None),
        lambda: jobs.create_end(spec.id, end("mine")),
    ):
        lossy.losing = True
        with pytest.raises(BrokerUnavailable):
            await write()
        lossy.losing = False
        await write()

    found = await jobs.source(spec.id)
    assert found is not None
    assert found.record == claim


async def test_chunks_are_sorted_by_number_not_by_text(jobs: JobStore) -> None:
    for index in (10, 2, 0):
        await jobs.put_chunk("video_1", chunk(index=index))

    assert [record.index for record in await jobs.chunks("video_1", 1, StageName.DENOISE)] == [0, 2, 10]


async def test_chunks_of_other_attempts_and_jobs_are_left_out(jobs: JobStore) -> None:
    await jobs.put_chunk("video_1", chunk(attempt=1))
    await jobs.put_chunk("video_1", chunk(attempt=2))
    await jobs.put_chunk("video_10", chunk(attempt=1))

    assert await jobs.chunks("video_1", 1) == [chunk(attempt=1)]


async def test_purging_progress_keeps_spec_and_end(jobs: JobStore, spec: JobSpec) -> None:
    await jobs.create_spec(spec)
    await jobs.swap_source(spec.id, SourceRecord(1, "t"), None)
    await jobs.put_chunk(spec.id, chunk())
    await jobs.create_end(spec.id, end("a"))
    await jobs.purge_progress(spec.id)

    assert {change.part for change in await jobs.all()} == {"spec", "end"}


async def test_watch_tells_records_and_deletions(jobs: JobStore, spec: JobSpec) -> None:
    await jobs.create_spec(spec)
    async with jobs.watch() as changes:
        seen = [await anext(changes), await anext(changes)]
        await jobs.purge_spec(spec.id)
        seen.append(await anext(changes))

    assert seen == [JobChange(spec.id, "spec", spec), None, JobChange(spec.id, "spec", None)]


async def test_a_record_that_cannot_be_read_does_not_hide_the_others(bucket: KeyValue, spec: JobSpec) -> None:
    jobs = JobStore(bucket)
    await bucket.put("video_0.spec", b"{")
    await bucket.put("video_0.poem", b"{}")
    await jobs.create_spec(spec)
    async with jobs.watch() as changes:
        watched = [await anext(changes), await anext(changes)]

    assert watched == [JobChange(spec.id, "spec", spec), None]
    assert await jobs.all() == [JobChange(spec.id, "spec", spec)]


async def test_watching_chunks_shows_those_there_and_those_to_come(jobs: JobStore) -> None:
    await jobs.put_chunk("video_1", chunk(index=0))
    async with jobs.watch_chunks("video_1", 1, StageName.DENOISE) as records:
        first = await anext(records)
        await jobs.put_chunk("video_1", chunk(attempt=2, index=1))
        await jobs.put_chunk("video_1", chunk(index=1))

        assert [first.index, (await anext(records)).index] == [0, 1]
