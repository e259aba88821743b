"""The board: progress, pages, and what it does while the broker is away."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from vitascope_core.errors import BrokerUnavailable
from vitascope_core.job import ChunkRecord, EndState, JobEnd, SourceRecord, SourceState
from vitascope_core.plan import Plan, StageName, UpscaleOptions
from vitascope_gateway.board import Board
from vitascope_gateway.ledger import Ledger, Status
from vitascope_platform.cards import Cards
from vitascope_platform.jobs import JobChange, JobStore
from vitascope_platform.kv_memory import MemoryKeyValue

COMPLETED = JobEnd(EndState.COMPLETED, "t", 5)
FAILED = JobEnd(EndState.FAILED, "t", 5, code="out_of_memory", message="no memory")


def chunk(attempt: int, index: int, output: int = 0, stage: StageName = StageName.DENOISE) -> ChunkRecord:
    return ChunkRecord(attempt, stage, output, index, "k", 0, 5, last=False)


class Script:
    """A ledger that one job's records are told to."""

    def __init__(self, spec) -> None:
        self.ledger = Ledger()
        self.spec = spec
        self.tell(spec)

    def tell(self, record, part: str = "") -> None:
        self.ledger.apply(JobChange(self.spec.id, part, record))

    @property
    def view(self):
        return self.ledger.get(self.spec.id)

    @property
    def progress(self) -> int:
        return self.view.progress


class Flaky(MemoryKeyValue):
    """A bucket whose watches break and stay broken until it is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = asyncio.Event()
        self.watches = 0

    @asynccontextmanager
    async def watch(self, prefix):
        self.watches += 1
        if self.broken.is_set():
            raise BrokerUnavailable("gone")
        async with super().watch(prefix) as entries:
            yield self._until_broken(entries)

    async def get(self, key):
        if self.broken.is_set():
            raise BrokerUnavailable("gone")
        return await super().get(key)

    async def _until_broken(self, entries):
        while True:
            following = asyncio.ensure_future(anext(entries))
            breaking = asyncio.ensure_future(self.broken.wait())
            await asyncio.wait({following, breaking}, return_when=asyncio.FIRST_COMPLETED)
            breaking.cancel()
            if not following.done():
                following.cancel()
                raise BrokerUnavailable("gone")
            yield following.result()


@asynccontextmanager
async def following(bucket=None):
    bucket = bucket or MemoryKeyValue()
    jobs, cards = JobStore(bucket), Cards(MemoryKeyValue())
    async with Board.follow(jobs, cards, retry_s=0.005) as board:
        assert await board.wait_ready(5)
        yield board, jobs, cards


async def until(check) -> None:
    for _ in range(1000):
        if check():
            return
        await asyncio.sleep(0.002)
    raise TimeoutError


def test_progress_follows_steps_and_chunks_and_reaches_100_only_with_the_end(flat_spec) -> None:
    script = Script(flat_spec(cuts=(5, 4)))
    seen = [script.progress]
    for step in range(5):
        script.tell(SourceRecord(1, "w", step=step, steps=4, beat=step))
        seen.append(script.progress)
    for index in range(2):
        script.tell(chunk(1, index))
        seen.append(script.progress)
    script.tell(COMPLETED)

    assert [*seen, script.progress] == [0, 0, 20, 40, 60, 80, 89, 99, 100]


def test_progress_never_goes_back_when_an_attempt_begins_anew(flat_spec) -> None:
    script = Script(flat_spec(cuts=(5, 4)))
    seen = []
    for record in [
        SourceRecord(1, "w", step=3, steps=4, beat=1),
        chunk(1, 0),
        SourceRecord(2, "v", step=0, steps=4),
        SourceRecord(2, "v", step=1, steps=4, beat=1),
        SourceRecord(1, "w", step=4, steps=4, beat=9),
        chunk(1, 1),
        SourceRecord(2, "v", SourceState.DECODED, step=4, steps=4, beat=2),
        chunk(2, 0),
        chunk(2, 1),
    ]:
        script.tell(record)
        seen.append(script.progress)

    assert seen == sorted(seen)
    assert seen[2] == seen[1] == 69
    assert (seen[-3:], script.view.chunks) == ([89, 89, 99], 2)


def test_a_gateway_that_starts_late_shows_the_progress_of_those_that_saw_the_first_attempt(flat_spec) -> None:
    early, late = Script(flat_spec(cuts=(5, 4))), Script(flat_spec(cuts=(5, 4)))
    second = SourceRecord(2, "v", step=1, steps=4, beat=1, reached_step=4)
    for record in [SourceRecord(1, "w", step=4, steps=4, beat=1), chunk(1, 0), second]:
        early.tell(record)
    for record in [chunk(1, 0), second]:  # all that is left to read
        late.tell(record)

    assert late.progress == early.progress == 89


def test_only_chunks_of_the_current_attempt_and_the_last_stage_count(flat_spec) -> None:
    script = Script(flat_spec(plan=Plan(upscale=UpscaleOptions(2))))
    script.tell(SourceRecord(2, "w"))
    upscaled = chunk(2, 0, stage=StageName.UPSCALE)
    for record in [chunk(1, 0, stage=StageName.UPSCALE), chunk(2, 0), chunk(2, 1), upscaled]:
        script.tell(record)

    assert script.view.chunks == 1
    script.tell(upscaled)
    assert script.view.chunks == 1


def test_chunks_of_superseded_attempts_are_forgotten(flat_spec) -> None:
    script = Script(flat_spec())
    for attempt in range(1, 6):
        script.tell(SourceRecord(attempt, "w"))
        script.tell(chunk(attempt, 0))

    assert list(script.ledger._jobs[script.spec.id].chunks) == [(5, StageName.DENOISE)]


def test_status_never_goes_back(flat_spec) -> None:
    script = Script(flat_spec())
    seen = [script.view.status]
    for record in [SourceRecord(1, "w"), SourceRecord(1, "w", SourceState.HANDED_BACK), FAILED, SourceRecord(2, "w")]:
        script.tell(record)
        seen.append(script.view.status)

    assert seen == [Status.QUEUED, Status.IN_PROGRESS, Status.IN_PROGRESS, Status.FAILED, Status.FAILED]


def test_a_cancelled_job_has_failed_and_keeps_its_progress(flat_spec) -> None:
    script = Script(flat_spec())
    script.tell(SourceRecord(1, "w", step=2, steps=4))
    script.tell(JobEnd(EndState.CANCELLED, "t", 5, code="cancelled"))

    assert (script.view.status, script.progress) == (Status.FAILED, 40)


def test_a_snapshot_may_come_in_any_order(flat_spec) -> None:
    spec, ledger = flat_spec(), Ledger()
    ledger.begin()
    for record in (chunk(1, 0), SourceRecord(1, "w", step=4, steps=4), spec):
        ledger.apply(JobChange(spec.id, "", record))
    ledger.finish()

    assert ledger.get(spec.id).progress == 89


def test_a_job_without_a_spec_is_unknown_and_leaves_nothing(flat_spec) -> None:
    script = Script(flat_spec())
    script.tell(FAILED)
    script.tell(None, "spec")
    for record in (SourceRecord(1, "w"), chunk(1, 0), FAILED):
        script.tell(record)

    assert script.view is None
    assert script.ledger._jobs == {}
    assert script.ledger._videos == []


def test_a_finished_job_keeps_no_chunks(flat_spec) -> None:
    script = Script(flat_spec())
    for index in range(100):
        script.tell(chunk(1, index))
    script.tell(COMPLETED)
    script.tell(chunk(1, 100))
    script.tell(SourceRecord(1, "w"))

    job = script.ledger._jobs[script.spec.id]
    assert (job.chunks, job.source) == ({}, None)


def test_a_second_snapshot_drops_what_vanished_and_keeps_progress(flat_spec) -> None:
    script, gone = Script(flat_spec(1)), flat_spec(2)
    script.ledger.apply(JobChange(gone.id, "spec", gone))
    script.tell(SourceRecord(1, "w", step=4, steps=4))
    script.ledger.begin()
    script.tell(SourceRecord(2, "w", step=1, steps=4))
    script.tell(script.spec)
    script.ledger.finish()

    assert script.ledger.get(gone.id) is None
    assert (script.view.source.attempt, script.progress) == (2, 80)
    assert len(script.ledger._videos) == 1


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_cover_the_list_once_in_a_stable_order(flat_spec, order) -> None:
    # Half of them within one millisecond.
    specs = [flat_spec(number // 5) for number in range(23)]
    ledger = Ledger()
    for spec in sorted(specs, key=lambda s: s.id[-4:]):
        ledger.apply(JobChange(spec.id, "spec", spec))
    newest_first = order == "desc"

    seen, after = [], None
    while True:
        page = ledger.videos("", after, 4, newest_first=newest_first)
        seen += [view.spec.id for view in page.jobs]
        if not page.has_more:
            break
        after = seen[-1]

    expected = sorted((s.id for s in specs), key=lambda i: i, reverse=newest_first)
    assert seen == expected


def test_a_page_goes_on_behind_a_video_that_was_deleted(flat_spec) -> None:
    specs = [flat_spec(number) for number in range(6)]
    ledger = Ledger()
    for spec in specs:
        ledger.apply(JobChange(spec.id, "spec", spec))
    ledger.forget(specs[3].id)

    down = ledger.videos("", specs[3].id, 2, newest_first=True)
    up = ledger.videos("", specs[3].id, 2, newest_first=False)

    assert [v.spec.id for v in down.jobs] == [specs[2].id, specs[1].id]
    assert [v.spec.id for v in up.jobs] == [specs[4].id, specs[5].id]
    assert (down.has_more, up.has_more) == (True, False)
    with pytest.raises(ValueError):
        ledger.videos("", "nonsense", 2, newest_first=True)


def test_a_list_shows_an_owner_only_their_own(flat_spec) -> None:
    ledger = Ledger()
    for number in range(6):
        spec = flat_spec(number, owner="ann" if number % 2 else "bob")
        ledger.apply(JobChange(spec.id, "spec", spec))

    page = ledger.videos("ann", None, 2, newest_first=True)

    assert [v.spec.owner for v in page.jobs] == ["ann", "ann"]
    assert page.has_more
    assert not ledger.videos("ann", page.jobs[-1].spec.id, 2, newest_first=True).has_more


async def test_the_board_hears_what_others_write(flat_spec, video_card) -> None:
    async with following() as (board, jobs, cards):
        spec = flat_spec()
        await jobs.create_spec(spec)
        await jobs.swap_source(spec.id, SourceRecord(1, "w", step=2, steps=4), None)
        await cards.put(video_card)
        await until(lambda: board.pools() and (view := board.job(spec.id)) and view.source)

        assert (board.job(spec.id).progress, board.pools(), board.stages()) == (40, (video_card,), ())
        await cards.remove_pool(video_card.pool)
        await until(lambda: not board.pools())


async def test_a_miss_is_looked_for_in_the_bucket(flat_spec) -> None:
    async with following() as (board, jobs, _):
        spec = flat_spec()
        await jobs.create_spec(spec)
        await jobs.swap_source(spec.id, SourceRecord(1, "w", step=4, steps=4), None)
        await jobs.put_chunk(spec.id, chunk(1, 0))

        assert board.job(spec.id) is None  # the watch had no turn yet
        assert (await board.lookup(spec.id)).progress == 89
        await jobs.create_end(spec.id, COMPLETED)
        assert board.job(spec.id) is None
        assert (await board.lookup(spec.id)).status is Status.COMPLETED


@pytest.mark.parametrize("job_id", ["", "video_1", "a.b", "x" * 500, "\0", "video_" + "0" * 32 + ".spec", "😀"])
async def test_what_is_no_id_is_not_looked_for(job_id) -> None:
    async with following() as (board, jobs, _):
        jobs.spec = None  # a call would raise

        assert await board.lookup(job_id) is None


async def test_the_board_survives_an_outage_of_the_watch(flat_spec) -> None:
    bucket = Flaky()
    async with following(bucket) as (board, jobs, _):
        known, ended, deleted, new = (flat_spec(number) for number in range(4))
        for spec in (known, ended, deleted):
            await jobs.create_spec(spec)
        await until(lambda: board.job(deleted.id))

        bucket.broken.set()
        await until(lambda: not board.ready)
        waiting = asyncio.create_task(board.wait_end(ended.id, 5))
        await asyncio.sleep(0)
        assert board.job(known.id) is not None
        with pytest.raises(BrokerUnavailable):
            await board.lookup(new.id)
        await until(lambda: bucket.watches > 2)
        bucket.broken.clear()
        await jobs.purge_spec(deleted.id)
        await jobs.create_spec(new)
        await jobs.create_end(ended.id, COMPLETED)
        assert await board.wait_ready(5)

        assert board.alive
        assert [v.spec.id for v in board.videos("", order="asc").jobs] == [known.id, ended.id, new.id]
        assert await waiting == COMPLETED
        await jobs.create_end(known.id, FAILED)
        await until(lambda: board.job(known.id).end)


async def test_waiting_for_an_end(flat_spec) -> None:
    async with following() as (board, jobs, _):
        spec, other = flat_spec(1), flat_spec(2)
        await jobs.create_spec(spec)
        waits = [asyncio.create_task(board.wait_end(spec.id, 5)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await jobs.create_end(other.id, FAILED)
        await jobs.create_end(spec.id, COMPLETED)
        await jobs.purge_spec(spec.id)

        assert await asyncio.gather(*waits) == [COMPLETED] * 3
        assert await board.wait_end(spec.id, 5) == COMPLETED  # it had ended before
        assert await board.wait_end("video_none", 0.01) is None
        assert board._waiting == {}


async def test_a_record_that_cannot_be_read_does_not_stop_the_board(flat_spec) -> None:
    async with following() as (board, jobs, _):
        spec = flat_spec()
        await jobs._bucket.put("video_0.spec", b"{")
        await jobs.create_spec(spec)
        await until(lambda: board.job(spec.id) is not None)

        assert board.ready


async def test_a_bug_makes_the_process_unfit_rather_than_deaf(caplog) -> None:
    async with following() as (board, jobs, _):
        board._ledger.apply = None
        await jobs.create_end("video_x", FAILED)
        await until(lambda: not board.alive)

        assert not board.ready
        assert "the board stopped following" in caplog.text


async def test_replaced_cards_are_seen_after_an_outage(video_card) -> None:
    bucket = Flaky()
    cards = Cards(bucket)
    await cards.put(video_card)
    async with Board.follow(JobStore(MemoryKeyValue()), cards, retry_s=0.005) as board:
        assert await board.wait_ready(5)
        bucket.broken.set()
        await until(lambda: not board.ready)
        assert board.pools() == (video_card,)
        bucket.broken.clear()
        await cards.put(replace(video_card, note="new"))
        assert await board.wait_ready(5)

        assert board.pools()[0].note == "new"
