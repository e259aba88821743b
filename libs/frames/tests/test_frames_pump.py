from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from vitascope_core.errors import Stopped, StoreUnavailable
from vitascope_frames.pump import drain, pump

pytestmark = pytest.mark.timeout(20)


class Numbers:
    """A blocking iterator that notes what is asked of it, and in which thread."""

    def __init__(self, count: int) -> None:
        self._left = iter(range(count))
        self.asked = 0
        self.closed = False
        self.threads: set[int] = set()
        self.asked_for: dict[int, threading.Event] = {n: threading.Event() for n in range(1, count + 2)}

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self.threads.add(threading.get_ident())
        self.asked += 1
        self.asked_for[self.asked].set()
        return next(self._left)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed = True


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def counted(count: int) -> AsyncIterator[int]:
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def test_items_come_in_order_from_one_other_thread() -> None:
    numbers = Numbers(100)

    assert [item async for item in pump(numbers)] == list(range(100))
    assert len(numbers.threads) == 1
    assert threading.get_ident() not in numbers.threads
    assert numbers.closed


async def test_the_next_item_is_made_while_this_one_is_used() -> None:
    numbers = Numbers(5)
    async with aclosing(pump(numbers)) as items:
        assert await anext(items) == 0
        await until(numbers.asked_for[2])


async def test_no_more_than_one_item_is_made_ahead() -> None:
    numbers = Numbers(5)
    async with aclosing(pump(numbers)) as items:
        await anext(items)
        await anext(items)
        await until(numbers.asked_for[3])
        await asyncio.sleep(0.05)

        assert numbers.asked == 3


async def test_an_error_arrives_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise StoreUnavailable("gone")

    async with aclosing(pump(failing())) as items:
        assert await anext(items) == 1
        with pytest.raises(StoreUnavailable):
            await anext(items)


async def test_a_stray_stop_iteration_only_ends_the_stream() -> None:
    class Odd:
        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            raise StopIteration("of another iterator")

    assert [item async for item in pump(Odd())] == []


async def test_leaving_early_closes_the_iterator_in_its_own_thread() -> None:
    numbers = Numbers(5)
    async with aclosing(pump(numbers)) as items:
        await anext(items)

    assert numbers.closed
    assert len(numbers.threads) == 1


async def test_leaving_early_hides_an_error_of_the_item_ahead(caplog) -> None:
    raised = threading.Event()

    def failing() -> Iterator[int]:
        yield 1
        raised.set()
        raise StoreUnavailable("nobody asked for this item")

    async with aclosing(pump(failing())) as items:
        await anext(items)
        await until(raised)
    del items

    assert caplog.records == []


async def test_cancelling_closes_the_iterator_once_its_step_has_ended() -> None:
    inside, let_go, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        try:
            inside.set()
            assert let_go.wait(10)
            yield 1
        finally:
            closed.set()

    async def use() -> None:
        async with aclosing(pump(slow())) as items:
            async for _ in items:
                pass

    task = asyncio.create_task(use())
    await until(inside)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    let_go.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_a_thread_can_consume_an_asynchronous_iterator() -> None:
    assert await drain(counted(100), list) == list(range(100))


async def test_the_loop_stays_one_item_ahead_of_the_thread() -> None:
    made: list[int] = []
    one_ahead = threading.Event()

    async def items() -> AsyncIterator[int]:
        async for number in counted(10):
            made.append(number)
            if number == 1:
                one_ahead.set()
            yield number

    def consume(fed: Iterator[int]) -> int:
        next(fed)
        assert one_ahead.wait(10)
        threading.Event().wait(0.05)
        return len(made)

    assert await drain(items(), consume) == 2


async def test_an_error_of_the_items_is_raised_in_the_thread_and_out_of_it() -> None:
    seen: list[object] = []

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise StoreUnavailable("gone")

    def consume(fed: Iterator[int]) -> None:
        try:
            seen.extend(fed)
        except StoreUnavailable as error:
            seen.append(type(error))
            raise

    with pytest.raises(StoreUnavailable):
        await drain(failing(), consume)
    assert seen == [1, StoreUnavailable]


async def test_an_error_of_the_consumer_ends_the_items() -> None:
    ended = False

    async def items() -> AsyncIterator[int]:
        nonlocal ended
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended = True

    def consume(fed: Iterator[int]) -> None:
        next(fed)
        raise StoreUnavailable("disk")

    with pytest.raises(StoreUnavailable):
        await drain(items(), consume)
    await asyncio.sleep(0)
    assert ended


async def test_a_consumer_may_stop_before_the_end() -> None:
    assert await drain(counted(100), next) == 0


async def test_an_exhausted_feed_stays_exhausted() -> None:
    def twice(fed: Iterator[int]) -> list[int]:
        return [*fed, *fed]

    assert await drain(counted(2), twice) == [0, 1]


async def test_cancelling_stops_a_thread_that_waits_for_an_item() -> None:
    waiting = threading.Event()
    caught: list[type[BaseException]] = []

    async def never() -> AsyncIterator[int]:
        waiting.set()
        await asyncio.Event().wait()
        yield 1

    def consume(fed: Iterator[int]) -> None:
        try:
            next(fed)
        except Stopped as error:
            caught.append(type(error))
            raise

    task = asyncio.create_task(drain(never(), consume))
    await until(waiting)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert caught == [Stopped]
