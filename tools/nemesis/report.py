"""The table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tools.nemesis.aftermath import Aftermath, JobFacts
from tools.nemesis.cast import ACK_WAIT_S
from tools.nemesis.forms import FORMS
from tools.nemesis.invariants import INVARIANTS, MEBIBYTE, harms
from vitascope_core.errors import WorkerCrashed

_MOST = 10
"""Contradictions shown of each invariant; the history has all."""


def broken(after: Aftermath) -> dict[str, list[str]]:
    """Return what contradicts each invariant, by its sentence."""
    return {invariant.sentence: list(invariant.check(after)) for invariant in INVARIANTS}


def report(after: Aftermath, found: dict[str, list[str]]) -> str:
    """Return the table of a run."""
    return "\n".join([*_jobs(after), "", *_faults(after), "", *_figures(after), "", *_invariants(found)])


def _jobs(after: Aftermath) -> Iterator[str]:
    ends = Counter((job.request.form, job.state if job.known else "deleted", job.code) for job in after.jobs)
    columns = [*sorted({(state, code) for _, state, code in ends if state != "deleted"}), ("deleted", "")]
    heads = [code or state or "open" for state, code in columns]
    yield _row("jobs", [*heads, "all"])
    for form in (*FORMS, ""):
        counts = [
            sum(n for (name, state, code), n in ends.items() if form in (name, "") and _in(state, code, column))
            for column in columns
        ]
        yield _row(form or "all", [*counts, sum(counts)])


def _in(state: str, code: str, column: tuple[str, str]) -> bool:
    return state == column[0] == "deleted" or (state, code) == column


def _faults(after: Aftermath) -> Iterator[str]:
    events = [event for event in after.events if event.kind == "fault"]
    met = Counter((event["fault"], event["target"]) for event in events if not event.facts.get("missed"))
    missed = Counter((event["fault"], event["target"]) for event in events if event.facts.get("missed"))
    targets = sorted({target for _, target in met | missed})
    yield _row("faults", [*(target or "jobs" for target in targets), "all", "missed"])
    for kind in dict.fromkeys(event["fault"] for event in events):
        counts = [met[kind, target] for target in targets]
        yield _row(kind, [*counts, sum(counts), sum(n for (name, _), n in missed.items() if name == kind)])
    totals = [sum(n for (_, name), n in met.items() if name == target) for target in targets]
    yield _row("all", [*totals, met.total(), missed.total()])


def _figures(after: Aftermath) -> Iterator[str]:
    counts = Counter(event.kind for event in after.events)
    answers = Counter(event["answer"][0] for event in after.events if event.kind == "later")
    deaths = Counter(event["why"] for event in after.events if event.kind == "ended")
    completed = sorted((job for job in after.jobs if job.state == "completed"), key=_seconds)
    yield f"requests              {len(after.schedule.requests)}, of these to be refused {counts['refusal']}"
    yield f"sent again            {counts['unanswered']} unanswered, {answers[429]} with 429, {answers[503]} with 503"
    yield f"source attempts       {sum(job.attempts for job in completed)} for {len(completed)} completed jobs"
    yield f"processes ended       {deaths['killed']} killed, {deaths['told']} told to, {deaths['itself']} by themselves"
    yield f"gateway memory        at most {after.gateway_peak_bytes // MEBIBYTE} MiB"
    if completed:
        median, slowest = _seconds(completed[len(completed) // 2]), completed[-1]
        waits = _seconds(slowest) / ACK_WAIT_S
        yield f"submit to completed   median {median:.1f} s, slowest {_seconds(slowest):.1f} s = {waits:.1f} ack waits"
        yield f"                      ({slowest.id}, {slowest.request.form}, {slowest.attempts} attempts)"
    for job in after.jobs:
        if job.code == WorkerCrashed.code and FORMS[job.request.form].doom != job.code:
            yield f"met too many faults   {job.id}: {harms(after, job.id)}"


def _seconds(job: JobFacts) -> float:
    return (job.ended_ms - job.created_ms) / 1000


def _invariants(found: dict[str, list[str]]) -> Iterator[str]:
    for sentence, problems in found.items():
        yield f"{'FAILED' if problems else 'ok':<7} {sentence}"
        yield from (f"        {line}" for problem in problems[:_MOST] for line in problem.splitlines())
        if len(problems) > _MOST:
            yield f"        … and {len(problems) - _MOST} more"


def _row(head: str, cells: Sequence[object]) -> str:
    return f"{head:<18}" + "".join(f"{cell!s:>16}" for cell in _blank(cells))


def _blank(cells: Iterable[object]) -> Iterator[object]:
    return ("·" if cell == 0 else cell for cell in cells)
