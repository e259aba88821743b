"""Bridges between a worker's event loop and compute that blocks.

Both run the blocking side in one thread of its own and stay one item ahead, so that transfers overlap compute and
memory holds two items at most.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from vitascope_core.errors import Stopped

T = TypeVar("T")
R = TypeVar("R")


class _End:
    """Stands for the end of an iterator, so that StopIteration never meets a future."""


_END = _End()


async def pump(iterator: Iterator[T], thread: ThreadPoolExecutor | None = None) -> AsyncGenerator[T, None]:
    """Yield the items of a blocking iterator; the next is made while the caller works on this one.

    Every step of the iterator, and its closing, happens in one and the same thread: that of ``thread``, an executor of
    one, or one of its own. Leaving early closes the iterator
    once its running step has ended, and waits for that: close this generator (`contextlib.aclosing`), or leave it to
    the loop.

    Raises:
        Whatever the iterator raises.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    executor = thread or ThreadPoolExecutor(1, thread_name_prefix="pump")

    def advance() -> asyncio.Future[T | _End]:
        return loop.run_in_executor(executor, context.run, lambda: next(iterator, _END))

    ahead = advance()
    try:
        while not isinstance(item := await ahead, _End):
            ahead = advance()
            yield item
    finally:
        closed = loop.run_in_executor(executor, context.run, _close, iterator)
        if thread is None:
            executor.shutdown(wait=False)
        await asyncio.shield(closed)
        if not ahead.cancelled():
            ahead.exception()  # nobody waits for it any more: looked at, so that the loop does not report it


async def drain(items: AsyncIterator[T], consume: Callable[[Iterator[T]], R]) -> R:
    """Run ``consume`` in a thread of its own on a blocking iterator of ``items``, and return what it returns.

    What ``items`` raises is raised in the thread by the iterator. When this call is cancelled the iterator raises
    `Stopped`, and the call ends once ``consume`` has.

    Raises:
        Whatever ``consume`` raises.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    feed = _Feed(items, loop)
    filling = feed.filling
    thread = ThreadPoolExecutor(1, thread_name_prefix="drain")
    working = loop.run_in_executor(thread, context.run, consume, feed)
    thread.shutdown(wait=False)
    try:
        return await asyncio.shield(working)
    finally:
        filling.cancel()
        await asyncio.wait((filling, working))
        for future in (filling, working):
            if not future.cancelled():
                future.exception()  # looked at: it has been raised in the thread, or above


class _Feed(Generic[T]):
    """A blocking iterator over an asynchronous one, which a task of the loop drives one item ahead."""

    def __init__(self, items: AsyncIterator[T], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop
        self._ready: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._taken = asyncio.Semaphore(0)
        self.filling: asyncio.Task[None] = loop.create_task(self._fill())
        self.filling.add_done_callback(lambda _: self._ready.put(_END))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self._ready.get()
        if not isinstance(item, _End):
            self._loop.call_soon_threadsafe(self._taken.release)
            return item
        self._ready.put(_END)  # for a caller that asks again
        if self.filling.cancelled():
            raise Stopped("nobody waits for the result any more")
        error = self.filling.exception()
        raise StopIteration if error is None else error

    async def _fill(self) -> None:
        async for item in self._items:
            self._ready.put(item)
            del item
            await self._taken.acquire()


def _close(iterator: Iterator[object]) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
