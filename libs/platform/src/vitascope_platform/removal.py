"""Cancelling and deleting jobs, in the order that leaves nothing to revive (DESIGN section 8)."""

from __future__ import annotations

from vitascope_core import keys
from vitascope_core.job import EndState, JobEnd, new_token
from vitascope_platform.platform import Platform


async def cancel_job(platform: Platform, job_id: str) -> JobEnd:
    """End a job as cancelled unless it has ended, and return the end that stands.

    Cancelling *is* creating the end: running work hears of it and stops.

    Raises:
        Outage: Not everything was done; safe to repeat.
    """
    standing = await _end(platform, job_id)
    await platform.bus.purge(job_id)
    return standing


async def forget_job(platform: Platform, job_id: str) -> None:
    """End a job and take it out of the list. Its end stays as a tombstone until the reaper takes it.

    Raises:
        Outage: Not everything was done; safe to repeat.
    """
    await _end(platform, job_id)
    await platform.jobs.purge_spec(job_id)


async def clear_job(platform: Platform, job_id: str) -> int:
    """Remove all that a forgotten job stored; return how many messages and objects there were.

    Raises:
        Outage: Not everything was removed; safe to repeat.
    """
    # Tasks before objects: a worker that finds no task does not write what was just removed.
    removed = await platform.bus.purge(job_id)
    removed += await platform.frames.delete_prefix(keys.job_prefix(job_id))
    removed += await platform.results.delete_prefix(keys.result_prefix(platform.result_prefix, job_id))
    await platform.jobs.purge_progress(job_id)
    return removed


async def delete_job(platform: Platform, job_id: str) -> None:
    """Forget a job and clear what it stored.

    Raises:
        Outage: Not everything was removed; safe to repeat.
    """
    await forget_job(platform, job_id)
    await clear_job(platform, job_id)


async def discard_losers(platform: Platform, job_id: str, end: JobEnd | None) -> int:
    """Remove the files of every upload but the one that ended the job; return how many there were.

    Args:
        platform: Where they are.
        job_id: Whose files.
        end: The end that stands; without one, or if the job has not completed, no file is kept.

    Raises:
        Outage: Not everything was removed; safe to repeat.
    """
    prefix = keys.result_prefix(platform.result_prefix, job_id)
    kept = f"{prefix}{end.token}/" if end is not None and end.state is EndState.COMPLETED else None
    found = [info.key for info in await platform.results.list(prefix)]
    losers = [key for key in found if kept is None or not key.startswith(kept)]
    for key in losers:
        await platform.results.delete(key)
    return len(losers)


async def _end(platform: Platform, job_id: str) -> JobEnd:
    now_ms = platform.clock.now_ns() // 1_000_000
    end = JobEnd(EndState.CANCELLED, new_token(), now_ms, code="cancelled", message="The job was cancelled.")
    return await platform.jobs.create_end(job_id, end)
