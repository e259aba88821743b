"""The gateway's memory: every job and every card, followed by watch, so that reads cost no round trip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Self

from vitascope_core.card import ModelCard, StageCard
from vitascope_core.errors import Outage, VitascopeError
from vitascope_core.job import JobEnd
from vitascope_gateway.catalogue import Catalogue
from vitascope_gateway.ledger import JobView, Ledger, Page, created_ms_of
from vitascope_platform.cards import Card, Cards
from vitascope_platform.jobs import JobChange, JobStore

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 15.0
"""Upper bound of the pauses between two attempts to watch again."""


class Board:
    """All jobs and cards as last heard. Made by `follow`.

    While the broker is away the board answers from memory, and is not `ready`.
    """

    def __init__(self, jobs: JobStore, cards: Cards, retry_s: float) -> None:
        self._jobs = jobs
        self._cards = cards
        self._retry_s = retry_s
        self._ledger = Ledger()
        self._shown: dict[str, Card] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._live: set[str] = set()
        self._became_ready = asyncio.Event()
        self._waiting: dict[str, set[asyncio.Future[JobEnd]]] = {}
        self._followers: dict[str, set[asyncio.Event]] = {}

    @classmethod
    @asynccontextmanager
    async def follow(cls, jobs: JobStore, cards: Cards, *, retry_s: float = 0.5) -> AsyncIterator[Self]:
        """Follow both buckets while the context is open.

        Args:
            jobs: The jobs bucket.
            cards: The cards bucket.
            retry_s: Pause before a lost watch is taken up again, seconds; doubled up to `LONGEST_PAUSE_S`.
        """
        board = cls(jobs, cards, retry_s)
        board._tasks = [
            asyncio.create_task(board._keep("jobs", board._follow_jobs)),
            asyncio.create_task(board._keep("cards", board._follow_cards)),
        ]
        for task in board._tasks:
            task.add_done_callback(_report)
        try:
            yield board
        finally:
            for task in board._tasks:
                task.cancel()
            await asyncio.gather(*board._tasks, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """Whether the following goes on; only a bug ends it, and then the process must start again."""
        return not any(task.done() for task in self._tasks)

    @property
    def ready(self) -> bool:
        """Whether both watches are live and their snapshots were read."""
        return self.alive and len(self._live) == 2

    async def wait_ready(self, timeout_s: float) -> bool:
        """Return whether the board was ready within ``timeout_s`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._became_ready.wait()
        return self.ready

    def job(self, job_id: str) -> JobView | None:
        """Return the job from memory, or None."""
        return self._ledger.get(job_id)

    async def lookup(self, job_id: str) -> JobView | None:
        """Return the job, from the bucket if memory does not have it: another gateway may just have accepted it.

        Raises:
            BrokerUnavailable: It is not in memory, and the bucket is away.
        """
        view = self._ledger.get(job_id)
        # What is not an id is not looked for: it may hold characters that mean something in a key.
        if view is not None or created_ms_of(job_id) is None:
            return view
        spec = await self._jobs.spec(job_id)
        if spec is None:
            return None
        # Not kept: the watch brings it, and would not take it away if it were deleted while we read.
        found = Ledger()
        found.apply(JobChange(job_id, "spec", spec))
        source, end = await self._jobs.source(job_id), await self._jobs.end(job_id)
        if source is not None:
            found.apply(JobChange(job_id, "source", source.record))
            for chunk in await self._jobs.chunks(job_id, source.record.attempt):
                found.apply(JobChange(job_id, "chunk", chunk))
        if end is not None:
            found.apply(JobChange(job_id, "end", end))
        return found.get(job_id)

    def videos(self, owner: str, after: str | None = None, limit: int = 20, order: str = "desc") -> Page:
        """Return a page of an owner's videos; see `Ledger.videos`."""
        return self._ledger.videos(owner, after, limit, newest_first=order == "desc")

    def forget(self, job_id: str) -> None:
        """Drop a deleted job now rather than when the watch says so, so that whoever deleted it does not see it."""
        self._ledger.forget(job_id)

    async def wait_end(self, job_id: str, timeout_s: float) -> JobEnd | None:
        """Return the job's end as soon as there is one, or None after ``timeout_s`` seconds."""
        future: asyncio.Future[JobEnd] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(future)
        try:
            async with asyncio.timeout(timeout_s):
                with suppress(Outage):
                    # It may have ended before we began to wait.
                    end = await self._jobs.end(job_id)
                    if end is not None:
                        return end
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting[job_id].discard(future)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    @contextmanager
    def changes(self, job_id: str) -> Iterator[asyncio.Event]:
        """Have an event set whenever anything becomes known of a job, for as long as the block runs."""
        changed = asyncio.Event()
        self._followers.setdefault(job_id, set()).add(changed)
        try:
            yield changed
        finally:
            self._followers[job_id].discard(changed)
            if not self._followers[job_id]:
                del self._followers[job_id]

    @property
    def catalogue(self) -> Catalogue:
        """All cards as they are now."""
        return Catalogue(self.pools(), self.stages())

    def pools(self) -> tuple[ModelCard, ...]:
        """Return the cards of the pools, by slug."""
        return tuple(c for _, c in sorted(self._shown.items()) if isinstance(c, ModelCard))

    def stages(self) -> tuple[StageCard, ...]:
        """Return the cards of the transforms."""
        return tuple(c for _, c in sorted(self._shown.items()) if isinstance(c, StageCard))

    async def _keep(self, name: str, follow: Callable[[], Awaitable[None]]) -> None:
        pause = self._retry_s
        while True:
            try:
                await follow()
                reason = "the watch ended"
            except VitascopeError as error:
                reason = str(error)
            if name in self._live:
                pause = self._retry_s
                self._live.discard(name)
                self._became_ready.clear()
            log.warning("watch lost, trying again", extra={"bucket": name, "reason": reason, "pause_s": pause})
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _is_live(self, name: str) -> None:
        self._live.add(name)
        if self.ready:
            self._became_ready.set()

    async def _follow_jobs(self) -> None:
        async with self._jobs.watch() as changes:
            self._ledger.begin()
            async for change in changes:
                if change is None:
                    self._ledger.finish()
                    self._is_live("jobs")
                    continue
                self._ledger.apply(change)
                for changed in self._followers.get(change.job_id, ()):
                    changed.set()
                if isinstance(change.record, JobEnd):
                    self._tell(change.job_id, change.record)

    async def _follow_cards(self) -> None:
        shown: dict[str, Card] = {}
        async with self._cards.watch() as changes:
            async for change in changes:
                if change is None:
                    self._shown = shown
                    self._is_live("cards")
                    continue
                key, card = change
                if card is None:
                    shown.pop(key, None)
                else:
                    shown[key] = card

    def _tell(self, job_id: str, end: JobEnd) -> None:
        for future in self._waiting.get(job_id, ()):
            if not future.done():
                future.set_result(end)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the board stopped following", exc_info=error)
