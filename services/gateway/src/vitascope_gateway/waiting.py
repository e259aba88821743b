"""A client that waits for its job: what it hears meanwhile, and what becomes of the job when it leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from vitascope_core.errors import Outage
from vitascope_core.job import EndState, JobEnd, JobSpec
from vitascope_gateway.desk import Desk
from vitascope_gateway.errors import WaitTooLong

log = logging.getLogger(__name__)

QUIET_S = 15.0
"""Longest silence towards a client that hears events, seconds: proxies close connections that say nothing."""


async def ended(desk: Desk, request: Request, spec: JobSpec) -> JobEnd:
    """Return the job's end; cancel the job if its client leaves or has waited long enough.

    Raises:
        ClientDisconnect: The client has left.
        WaitTooLong: It has waited for ``sync_timeout_s``.
    """
    async for event in events(desk, request, spec):
        if isinstance(event, JobEnd):
            return event
    raise ClientDisconnect


ABANDON_S = 2.0
"""Longest time that cancelling an abandoned job may take, seconds: what ends its request waits for nothing else."""


class Shown(NamedTuple):
    """The previews that an attempt has stored."""

    attempt: int
    previews: int


async def events(desk: Desk, request: Request, spec: JobSpec) -> AsyncGenerator[JobEnd | Shown | None, None]:
    """Yield how many previews there are whenever there are more, None after `QUIET_S` of silence, then the end.

    Raises:
        ClientDisconnect, WaitTooLong: See `ended`.
    """
    limit_s = desk.settings.sync_timeout_s
    ending = asyncio.create_task(desk.board.wait_end(spec.id, limit_s))
    leaving = asyncio.create_task(_left(request))
    try:
        with desk.board.changes(spec.id) as changed:
            seen = 0
            while not ending.done() and not leaving.done():
                changed.clear()
                view = desk.board.job(spec.id)
                source = view.source if view is not None else None
                if source is not None and source.previews > seen:
                    seen = source.previews
                    yield Shown(source.attempt, seen)
                elif not await _any_of(ending, leaving, changed):
                    yield None
        end = ending.result() if ending.done() else None
        left = leaving.done()
    except (asyncio.CancelledError, GeneratorExit):
        # The server ends, or the answer cannot be sent. The client asks again elsewhere, and nobody sees this one.
        await _abandoned(desk, spec)
        raise
    finally:
        ending.cancel()
        leaving.cancel()
        await asyncio.gather(ending, leaving, return_exceptions=True)
    yield end or await _cancelled(desk, spec, left=left)


async def _any_of(ending: asyncio.Task[JobEnd | None], leaving: asyncio.Task[None], changed: asyncio.Event) -> bool:
    """Return whether anything happened within `QUIET_S`."""
    changing = asyncio.create_task(changed.wait())
    done, _ = await asyncio.wait((ending, leaving, changing), timeout=QUIET_S, return_when=asyncio.FIRST_COMPLETED)
    changing.cancel()
    return bool(done)


async def _abandoned(desk: Desk, spec: JobSpec) -> None:
    try:
        async with asyncio.timeout(ABANDON_S):
            await desk.submission.cancel(spec.id)
    except (Outage, TimeoutError) as error:
        log.warning("abandoned job not cancelled", extra={"job_id": spec.id, "error": str(error)})


async def _cancelled(desk: Desk, spec: JobSpec, *, left: bool) -> JobEnd:
    """Cancel a job that nobody waits for any more; return its end if it ended just now."""
    try:
        standing = await desk.submission.cancel(spec.id)
    except Outage as error:
        # It runs on and ends unseen. The client must not be told to try again: that would make it two.
        log.warning("abandoned job not cancelled", extra={"job_id": spec.id, "error": str(error)})
    else:
        if standing.state is not EndState.CANCELLED:
            return standing
    if left:
        raise ClientDisconnect
    raise WaitTooLong(desk.settings.sync_timeout_s)


async def _left(request: Request) -> None:
    """Return when the client closes the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
