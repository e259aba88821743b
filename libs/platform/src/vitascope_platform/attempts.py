"""Whose turn a source stage is, and when a job has crashed too often. Rules only; the worker applies them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vitascope_core.job import ChunkRecord, SourceRecord, SourceState


def next_attempt(before: SourceRecord | None, recorded_chunks: int, token: str, now_ms: int) -> SourceRecord:
    """Return the record that claims the source stage after the attempt ``before``.

    An attempt that was handed back counts neither way. One that got further than every attempt before it was unlucky
    and clears the count of crashes; one that did not adds to it, so that a job which kills its worker at the same place
    each time comes to an end, however many checkpoints and chunks it stores before.

    Args:
        before: The last attempt, or None if there was none.
        recorded_chunks: How many source chunks the last attempt recorded.
        token: Fresh; proves the claim.
        now_ms: Wall clock.
    """
    if before is None:
        return SourceRecord(1, token, started_ms=now_ms)
    step = before.checkpoint.step if before.checkpoint else 0
    if before.state is SourceState.HANDED_BACK:
        crashes = before.crashes
    elif recorded_chunks > before.best_chunks or step > before.best_step:
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
        checkpoint=before.checkpoint,
        best_step=max(before.best_step, step),
        reached_step=max(before.reached_step, before.step),
        computed_steps=before.computed_steps + max(0, before.step - before.resumed_step),
        saved_seconds=before.saved_seconds,
        # So that progress is not lost with the first heartbeat.
        steps=before.steps,
        # So that nothing becomes unknown again; the sound went with the attempt that stored it.
        media=None if before.media is None else replace(before.media, audio=""),
    )


def kept_chunks(before: SourceRecord, chunks: Sequence[ChunkRecord]) -> tuple[ChunkRecord, ...]:
    """Return those chunks of the attempt ``before`` that the next one need not make again.

    They are the outputs that were recorded in full, provided that the newest checkpoint is of the last step and that
    the attempt wrote it or went on from it: only then do both attempts decode the same latents.

    Args:
        before: The last attempt.
        chunks: All that it recorded of the source stage.
    """
    checkpoint = before.checkpoint
    if checkpoint is None or not before.steps or checkpoint.step < before.steps:
        return ()
    if checkpoint.attempt != before.attempt and checkpoint.step != before.resumed_step:
        return ()
    whole = {c.output: c.index + 1 for c in chunks if c.last}
    counts = Counter(c.output for c in chunks)
    return tuple(c for c in chunks if counts[c.output] == whole.get(c.output))


def stepped(record: SourceRecord, step: int, steps: int) -> SourceRecord:
    """Return the record with one more heartbeat and the denoising steps done, of which an attempt never has fewer."""
    return replace(record, beat=record.beat + 1, step=max(record.step, step), steps=steps or record.steps)
