"""Cancelling and deleting jobs, in the order that leaves nothing to revive (DESIGN section 8)."""

from __future__ import annotations

from vitascope_core import keys
from vitascope_core.job import EndState, JobEnd, new_token
from vitascope_platform.platform import Platform


async def cancel_job(platform: Platform, job_id: str, reason: str = "The job was cancelled.") -> JobEnd:
    """End a job as cancelled unless it has ended, and return the end that stands.

    Cancelling *is* creating the end: running work sees it at its next look and stops.

    Raises:
        Outage: Not everything was done; safe to repeat.
    """
    end = JobEnd(EndState.CANCELLED, new_token(), platform.clock.now_ns() // 1_000_000, "cancelled", reason)
    standing = await platform.jobs.create_end(job_id, end)
    await platform.bus.purge(job_id)
    return standing


async def delete_job(platform: Platform, job_id: str) -> None:
    """Remove a job, its messages, its objects and its results. Its end stays as a tombstone until the reaper takes it.

    Raises:
        Outage: Not everything was removed; safe to repeat.
    """
    await cancel_job(platform, job_id, "The job was deleted.")
    await platform.jobs.purge_spec(job_id)
    await platform.jobs.purge_progress(job_id)
    await platform.frames.delete_prefix(keys.job_prefix(job_id))
    await platform.results.delete_prefix(keys.result_prefix(platform.result_prefix, job_id))
