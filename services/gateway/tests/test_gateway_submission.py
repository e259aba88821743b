"""Accepting, cancelling and deleting, with the other side away at any moment."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from vitascope_core import keys
from vitascope_core.errors import BrokerUnavailable, StoreUnavailable
from vitascope_core.job import ChunkRecord, EndState, JobEnd, SourceRecord
from vitascope_core.plan import StageName
from vitascope_core.task import Queue, source_task
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.clock import SystemClock
from vitascope_platform.kv_memory import MemoryKeyValue

PROMPT = {"prompt": "a cat"}
CLIPS = Queue(StageName.DENOISE, "clips")


class WeakBus(MemoryBus):
    """A bus that fails its next publishes, some of them after they were stored."""

    def __init__(self, failures: int, *, stored: bool = False) -> None:
        super().__init__(SystemClock())
        self.failures = failures
        self.stored = stored

    async def publish(self, task, **options) -> None:
        if self.stored:
            await super().publish(task, **options)
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("timed out")
        await super().publish(task, **options)


class WeakBucket(MemoryKeyValue):
    """A bucket that fails its next creates, some of them after they were stored."""

    def __init__(self, failures: int, *, stored: bool = False) -> None:
        super().__init__()
        self.failures = failures
        self.stored = stored

    async def create(self, key, value) -> int:
        if self.failures:
            self.failures -= 1
            if self.stored:
                await super().create(key, value)
            raise BrokerUnavailable("timed out")
        return await super().create(key, value)


class SlowWatch(MemoryKeyValue):
    """A bucket whose watchers hear nothing while it is told to be silent, as over a network."""

    def __init__(self) -> None:
        super().__init__()
        self.speak = asyncio.Event()
        self.speak.set()

    @asynccontextmanager
    async def watch(self, prefix):
        async def slow(entries):
            async for entry in entries:
                await self.speak.wait()
                yield entry

        async with super().watch(prefix) as entries:
            yield slow(entries)


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr("vitascope_gateway.submission.PATIENCE_S", 0.25)


async def test_an_accepted_job_has_a_spec_and_one_task(stack) -> None:
    answer = await stack.client.post("/v1/videos", json=PROMPT)

    spec = await stack.jobs.spec(answer.json()["id"])
    (delivery,) = await stack.bus.fetch(CLIPS, 5, 1)
    assert answer.json()["seed"] == spec.denoise.seeds[0]
    assert (delivery.task.job_id, delivery.task.stage, delivery.task.attempt) == (spec.id, StageName.DENOISE, 0)


async def test_a_job_whose_task_cannot_be_published_is_accepted_all_the_same(stacks) -> None:
    async with stacks(bus=WeakBus(99)) as stack:
        answer = await stack.client.post("/v1/videos", json=PROMPT)

        assert answer.status_code == 200
        assert await stack.jobs.spec(answer.json()["id"]) is not None


@pytest.mark.parametrize("stored", [True, False])
async def test_a_publish_of_unknown_outcome_is_repeated_and_leaves_one_task(stacks, stored) -> None:
    async with stacks(bus=WeakBus(1, stored=stored)) as stack:
        answer = await stack.client.post("/v1/videos", json=PROMPT)

        assert await stack.bus.count(answer.json()["id"]) == 1


@pytest.mark.parametrize("stored", [True, False])
async def test_a_create_of_unknown_outcome_is_repeated(stacks, stored) -> None:
    async with stacks(bucket=WeakBucket(1, stored=stored)) as stack:
        answer = await stack.client.post("/v1/videos", json=PROMPT)

        assert answer.status_code == 200
        assert await stack.bus.count(answer.json()["id"]) == 1


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/images/generations"])
async def test_a_job_that_cannot_be_stored_is_an_outage(stacks, path) -> None:
    async with stacks(bucket=WeakBucket(99)) as stack:
        answer = await stack.client.post(path, json=PROMPT)

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert answer.json()["error"]["code"] == "service_unavailable"
        assert answer.json()["error"]["type"] == "server_error"
        assert await stack.is_untouched()


async def make_busy(stack, *, completed: bool) -> str:
    """A job with everything that can be left of one."""
    video = (await stack.client.post("/v1/videos", json=PROMPT)).json()["id"]
    if completed:
        await stack.complete(video)
    else:
        await stack.jobs.swap_source(video, SourceRecord(1, "w", step=1, steps=4), None)
    await stack.jobs.put_chunk(video, ChunkRecord(1, StageName.DENOISE, 0, 0, "k", 0, 9, last=True))
    await stack.frames.put(keys.chunk_key(video, 1, StageName.DENOISE, 0, 0), b"frames")
    await stack.settled(lambda: (view := stack.board.job(video)) and (view.source or view.end))
    return video


@pytest.mark.parametrize("completed", [False, True])
async def test_deleting_leaves_the_end_alone(stack, completed) -> None:
    video, other = await make_busy(stack, completed=completed), await make_busy(stack, completed=True)

    answer = await stack.client.delete(f"/v1/videos/{video}")

    assert answer.json() == {"id": video, "object": "video.deleted", "deleted": True}
    assert [e.key for e in await stack.bucket.entries(video)] == [keys.end_entry(video)]
    expected = EndState.COMPLETED if completed else EndState.CANCELLED
    assert (await stack.jobs.end(video)).state is expected
    assert await stack.bus.count(video) == 0
    assert [i.key for i in await stack.frames.list("")] == [keys.chunk_key(other, 1, StageName.DENOISE, 0, 0)]
    assert len(await stack.results.list("")) == 3
    assert all(i.key.startswith(other) for i in await stack.results.list(""))
    assert await stack.bus.count(other) == 1


async def test_a_deleted_video_is_gone_at_once_and_everywhere(stack) -> None:
    video = await make_busy(stack, completed=True)
    await stack.client.delete(f"/v1/videos/{video}")

    for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        answer = await stack.client.request(method, f"/v1/videos/{video}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, None)
    assert (await stack.client.get("/v1/videos")).json()["data"] == []


async def test_who_deletes_a_video_does_not_see_it_while_the_watch_lags(stacks) -> None:
    async with stacks(bucket=SlowWatch()) as stack:
        video = await make_busy(stack, completed=True)
        stack.bucket.speak.clear()
        await stack.client.delete(f"/v1/videos/{video}")

        assert (await stack.client.get(f"/v1/videos/{video}")).status_code == 404
        assert (await stack.client.get("/v1/videos")).json()["data"] == []
        stack.bucket.speak.set()
        await asyncio.sleep(0.01)
        assert (await stack.client.get(f"/v1/videos/{video}")).status_code == 404


async def test_a_new_video_is_seen_while_the_watch_lags(stacks) -> None:
    async with stacks(bucket=SlowWatch()) as stack:
        stack.bucket.speak.clear()
        video = (await stack.client.post("/v1/videos", json=PROMPT)).json()["id"]

        assert (await stack.client.get(f"/v1/videos/{video}")).json()["status"] == "queued"
        await stack.complete(video)
        assert (await stack.client.get(f"/v1/videos/{video}/content")).content == b"0123456789"


async def test_late_words_of_a_worker_do_not_revive_a_deleted_video(stack) -> None:
    video = await make_busy(stack, completed=False)
    await stack.client.delete(f"/v1/videos/{video}")

    claim = await stack.jobs.source(video)
    assert claim is None
    await stack.jobs.swap_source(video, SourceRecord(2, "zombie"), None)
    end = await stack.jobs.create_end(video, JobEnd(EndState.COMPLETED, "zombie", 1))
    await asyncio.sleep(0.01)

    assert end.state is EndState.CANCELLED
    assert (await stack.client.get(f"/v1/videos/{video}")).status_code == 404


async def test_the_end_stands_before_the_spec_goes_and_tasks_before_objects(stack, monkeypatch) -> None:
    video, order = await make_busy(stack, completed=False), []

    def watched(target, name):
        call = getattr(target, name)

        async def noted(*args):
            order.append(name if name != "delete_prefix" else args[0].partition("/")[0])
            return await call(*args)

        monkeypatch.setattr(target, name, noted)

    for target, name in [
        (stack.jobs, "create_end"),
        (stack.jobs, "purge_spec"),
        (stack.bus, "purge"),
        (stack.frames, "delete_prefix"),
        (stack.results, "delete_prefix"),
        (stack.jobs, "purge_progress"),
    ]:
        watched(target, name)
    await stack.submission.delete(video)

    assert order == ["create_end", "purge_spec", "purge", "jobs", video, "purge_progress"]


async def test_a_deletion_that_an_outage_interrupted_is_finished_by_the_next(stack, monkeypatch) -> None:
    video = await make_busy(stack, completed=True)

    async def away(prefix):
        raise StoreUnavailable("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(stack.results, "delete_prefix", away)
        first = await stack.client.delete(f"/v1/videos/{video}")
    second = await stack.client.delete(f"/v1/videos/{video}")
    third = await stack.client.delete(f"/v1/videos/{video}")

    assert [a.status_code for a in (first, second, third)] == [503, 200, 404]
    assert await stack.results.list("") == []


async def test_deleting_twice_at_once_does_no_harm(stack) -> None:
    video = await make_busy(stack, completed=True)

    answers = await asyncio.gather(*(stack.client.delete(f"/v1/videos/{video}") for _ in range(5)))

    assert {a.status_code for a in answers} <= {200, 404}
    assert 200 in {a.status_code for a in answers}
    assert [e.key for e in await stack.bucket.entries(video)] == [keys.end_entry(video)]


async def test_cancelling_purges_the_tasks_and_returns_the_end_that_stands(stack) -> None:
    running = await make_busy(stack, completed=False)
    done = await make_busy(stack, completed=True)

    assert (await stack.submission.cancel(running)).state is EndState.CANCELLED
    assert (await stack.submission.cancel(done)).state is EndState.COMPLETED
    assert await stack.bus.count(running) == 0
    await stack.settled(lambda: stack.board.job(running).end)
    video = (await stack.client.get(f"/v1/videos/{running}")).json()
    assert (video["status"], video["error"]["code"]) == ("failed", "cancelled")


async def test_a_job_carries_the_trace_of_its_request(stack) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await stack.client.post("/v1/videos", json={"prompt": "a cat"}, headers={"traceparent": trace})
    spec = await stack.jobs.spec(answer.json()["id"])
    (delivery,) = await stack.bus.fetch(source_task(spec).queue, 1, timeout_s=0)

    assert spec.traceparent.split("-")[1] == trace.split("-")[1]
    assert delivery.headers["traceparent"] == spec.traceparent
