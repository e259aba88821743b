"""Whose turn a source stage is, and when a job has crashed too often. Rules only; the worker applies them."""

from __future__ import annotations

from dataclasses import replace

from vitascope_core.job import SourceRecord, SourceState


def next_attempt(before: SourceRecord | None, recorded_chunks: int, token: str, now_ms: int) -> SourceRecord:
    """Return the record that claims the source stage after the attempt ``before``.

    An attempt that was handed back counts neither way. One that got further than every attempt before it was unlucky
    and clears the count of crashes; one that did not adds to it, so that a job which kills its worker at the same place
    each time comes to an end, however many chunks it records before.

    Args:
        before: The last attempt, or None if there was none.
        recorded_chunks: How many source chunks the last attempt recorded.
        token: Fresh; proves the claim.
        now_ms: Wall clock.
    """
    if before is None:
        return SourceRecord(1, token, started_ms=now_ms)
    if before.state is SourceState.HANDED_BACK:
        crashes = before.crashes
    elif recorded_chunks > before.best_chunks:
        crashes = 0
    else:
        crashes = before.crashes + 1
    return SourceRecord(
        attempt=before.attempt + 1,
        owner=token,
        crashes=crashes,
        best_chunks=max(before.best_chunks, recorded_chunks),
        started_ms=before.started_ms,
        error=before.error,
    )


def stepped(record: SourceRecord, step: int, steps: int) -> SourceRecord:
    """Return the record with one more heartbeat and the denoising steps done."""
    return replace(record, beat=record.beat + 1, step=step, steps=steps)
