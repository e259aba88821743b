"""What must hold when all is over, whatever was broken meanwhile. Each invariant returns what contradicts it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.nemesis.aftermath import Aftermath, JobFacts
from tools.nemesis.cast import MAX_DELIVERIES
from tools.nemesis.forms import FORMS
from tools.nemesis.history import Event
from tools.nemesis.schedule import FaultKind, Follow
from vitascope_core.errors import InputLost, WorkerCrashed

MEBIBYTE = 1024 * 1024
GATEWAY_BYTES = 200 * MEBIBYTE
"""The most that a gateway may hold; one that has just begun holds about 90 MiB."""

_ENDED = ("completed", "failed")
_HARM = (
    FaultKind.KILL,
    FaultKind.FREEZE,
    FaultKind.POINT,
    FaultKind.STOP,
    FaultKind.STALL,
)
"""Faults that may cost a task a delivery; who is told to end hands back, which never counts."""

_LATER = {429: "rate_limit_exceeded", 503: "service_unavailable"}
_UNREAD = "result_unavailable"
_TOLD = (0, -15, -9)
"""Exit codes after SIGTERM: in order, before it was listened to, or killed because it took too long."""

Check = Callable[[Aftermath], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Invariant:
    """A sentence that holds, and what finds exceptions."""

    sentence: str
    check: Check


def every_request_is_answered(after: Aftermath) -> Iterator[str]:
    """Look for requests that no gateway ever took."""
    answered = {event["number"] for event in _of(after, "accepted", "failed answer", "refusal", "hung up")}
    for request in after.schedule.requests:
        if request.number not in answered:
            yield f"request {request.number} ({request.form}) has no answer"


def every_job_ends_once(after: Aftermath) -> Iterator[str]:
    """Look for jobs without an end, with two, or that were accepted and are not there."""
    ends = defaultdict[str, list[str]](list)
    for event in _of(after, "end"):
        ends[event["job"]].append(f"{event['state']} {event['code']} {event['token']}")
    for job in after.jobs:
        if not job.state:
            yield f"{_name(job)} has not ended"
        elif any(not end.endswith(job.token) for end in ends[job.id]) or len(ends[job.id]) > 1:
            yield f"{_name(job)} ended as {', then '.join(ends[job.id])} and is now {job.state} {job.token}"
    known = {job.id for job in after.jobs}
    for event in _of(after, "accepted"):
        if event["job"] not in known:
            yield f"{event['job']} was accepted as request {event['number']} and is unknown"
    for event in _of(after, "cancelled"):
        facts = _job(after, event["job"])
        if facts is not None and facts.token != event["token"]:
            yield f"{_name(facts)} was told to have ended with {event['token']} and has {facts.token}"


def terminal_states_stay(after: Aftermath) -> Iterator[str]:
    """Look for videos that were shown as ended and then otherwise."""
    first: dict[str, Event] = {}
    ended = dict[tuple[str, str], Event]()
    for event in _of(after, "seen"):
        job, here = event["job"], (event["job"], event["gateway"])
        if event["status"] in _ENDED:
            before = first.setdefault(job, event)
            if (before["status"], before["code"]) != (event["status"], event["code"]):
                yield f"{job} was {before['status']} {before['code']} and then {event['status']} {event['code']}"
            ended[here] = event
        elif here in ended and event["status"] != "absent":
            yield f"{job} had ended for {event['gateway']} and was {event['status']} at {event.at_s} s"


def progress_never_goes_back(after: Aftermath) -> Iterator[str]:
    """Look for videos that a gateway showed farther before."""
    most = dict[tuple[str, str], int]()
    for event in _of(after, "seen"):
        here, progress = (event["job"], event["gateway"]), event["progress"]
        if event["status"] == "absent":
            continue
        if progress < most.get(here, 0):
            yield f"{event['job']} went from {most[here]} to {progress} at {event['gateway']}, {event.at_s} s"
        if (progress == 100) != (event["status"] == "completed"):
            yield f"{event['job']} was {event['status']} at {progress} percent"
        most[here] = progress


def nothing_vanishes_or_revives(after: Aftermath) -> Iterator[str]:
    """Look for jobs that are gone and were not deleted, and for deleted ones that are not gone."""
    asked = {event["job"]: event.at_s for event in _of(after, "deleting")}
    gone = set[tuple[str, str]]()
    for event in _of(after, "seen"):
        here = (event["job"], event["gateway"])
        if event["status"] != "absent":
            if here in gone:
                yield f"{event['job']} was gone from {event['gateway']} and came back at {event.at_s} s"
        elif asked.get(event["job"], event.at_s + 1) > event.at_s:
            yield f"{event['job']} vanished from {event['gateway']} at {event.at_s} s"
        else:
            gone.add(here)
    for event in _of(after, "deleted"):
        if event["status"] not in (200, 404):
            yield f"{event['job']} was deleted with {event['status']}"
    for job in after.jobs:
        wanted = 404 if job.id in asked else 200
        if any(status != wanted for status in job.shown) or job.known != (wanted == 200):
            yield f"{_name(job)} is answered with {job.shown}, wanted {wanted}; its spec is {_there(job.known)}"


def files_are_those_of_the_undisturbed(after: Aftermath) -> Iterator[str]:
    """Look for completed jobs with other files than their references."""
    for job in after.jobs:
        if job.state != "completed" or not job.known:
            continue
        found = job.tokens.get(job.token, {})
        wanted = after.references.get((job.request.form, job.request.seed), {})
        if dict(found) != dict(wanted):
            other = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
            yield f"{_name(job)} has other files: {', '.join(other)}"


def one_set_of_files_each(after: Aftermath) -> Iterator[str]:
    """Look for files of losers, and of jobs that have none."""
    for job in after.jobs:
        wanted = {job.token} if job.state == "completed" and job.known else set()
        if set(job.tokens) != wanted:
            yield f"{_name(job)}, {job.state}, has files of {sorted(job.tokens)}, wanted {sorted(wanted)}"


def nothing_is_left(after: Aftermath) -> Iterator[str]:
    """Look for intermediate objects, for messages and for records of progress."""
    yield from (f"object {key}" for key in after.objects)
    yield from (f"message of {job}" for job in after.messages)
    yield from (f"progress of {job}" for job in after.records)


def only_the_harmed_fail(after: Aftermath) -> Iterator[str]:
    """Look for ends that nothing that happened to the job explains."""
    robbed = {event["job"] for event in _of(after, "fault") if event.facts.get("job") and event.facts.get("key")}
    accepted = {event["job"] for event in _of(after, "accepted")}
    for job in after.jobs:
        doom, ended = FORMS[job.request.form].doom, (job.state, job.code)
        if ended == ("failed", doom) or (ended == ("completed", "") and not doom):
            continue
        if ended == ("failed", InputLost.code) and job.id in robbed:
            continue
        if ended == ("failed", WorkerCrashed.code) and harms(after, job.id) >= MAX_DELIVERIES:
            continue
        if job.state == "cancelled" and _may_be_cancelled(job, accepted):
            continue
        if job.state:  # that it has none is told elsewhere
            yield f"{_name(job)} ended as {job.state} {job.code} after {harms(after, job.id)} faults"


def refusals_are_typed(after: Aftermath) -> Iterator[str]:
    """Look for refusals without type, and for requests that should have been refused."""
    for event in _of(after, "refusal"):
        if not all(want in ("", got) for want, got in zip(event["wanted"], event["got"], strict=True)):
            yield f"request {event['number']} was answered with {event['got']}, wanted {event['wanted']}"
    for event in _of(after, "later"):
        status, code, retry_after = event["answer"]
        if _LATER.get(status) != code or not str(retry_after or "").isdecimal():
            yield f"request {event['number']} was put off with {event['answer']}"
    codes = defaultdict[int, set[str]](set)
    for job in after.jobs:
        codes[job.request.number].add(job.code)
    for event in _of(after, "failed answer"):
        # What is finished and cannot be read now belongs to a job that completed, which has no code.
        unread = event["code"] == _UNREAD
        wanted, code = (503, "") if unread else (500, event["code"])
        if event["status"] != wanted or event["again"] != "false" or code not in codes[event["number"]]:
            yield f"request {event['number']} ({event['form']}) was answered with {event['status']} {event['code']}"


def processes_live(after: Aftermath) -> Iterator[str]:
    """Look for processes that are not there, or that ended otherwise than by what was done to them."""
    yield from (f"{name} is dead" for name in after.dead)
    for event in _of(after, "ended"):
        code, why = event["code"], event["why"]
        if (why == "itself" and code != -9) or (why == "told" and code not in _TOLD):
            tail = event.facts.get("tail", "")
            yield f"{event['process']} ended ({why}) with {code} at {event.at_s} s\n{tail}".rstrip()


def gateways_stay_small(after: Aftermath) -> Iterator[str]:
    """Look at the most memory that a gateway held."""
    if after.gateway_peak_bytes > GATEWAY_BYTES:
        yield f"{after.gateway_peak_bytes // MEBIBYTE} MiB, allowed are {GATEWAY_BYTES // MEBIBYTE}"


def nothing_unexpected_is_raised(after: Aftermath) -> Iterator[str]:
    """Look for tracebacks in what the services logged."""
    yield from after.tracebacks


INVARIANTS = (
    Invariant("every request was answered", every_request_is_answered),
    Invariant("every accepted job ended, exactly once", every_job_ends_once),
    Invariant("what was shown as ended stayed as it was", terminal_states_stay),
    Invariant("progress never went back", progress_never_goes_back),
    Invariant("nothing vanished, nothing deleted revived", nothing_vanishes_or_revives),
    Invariant("files are those of the undisturbed job", files_are_those_of_the_undisturbed),
    Invariant("one set of files for each completed job", one_set_of_files_each),
    Invariant("no intermediate object, message or progress record is left", nothing_is_left),
    Invariant("only jobs failed that had a reason", only_the_harmed_fail),
    Invariant("refusals had their types", refusals_are_typed),
    Invariant("processes ended only when they were made to", processes_live),
    Invariant("gateways stayed small", gateways_stay_small),
    Invariant("no service met an error that it does not know", nothing_unexpected_is_raised),
)


def harms(after: Aftermath, job: str) -> int:
    """Return how many faults there were during a job's life that may have cost a task of it a delivery."""
    born = next((event.at_s for event in _of(after, "spec") if event["job"] == job), 0.0)
    died = next((event.at_s for event in _of(after, "end") if event["job"] == job), float("inf"))
    faults = [
        event
        for event in _of(after, "fault")
        if event["fault"] in _HARM and event["begun_s"] <= died and event["ended_s"] >= born
    ]
    deaths = [event for event in _of(after, "ended") if event["why"] == "itself" and born <= event.at_s <= died]
    return len(faults) + len(deaths)


def _may_be_cancelled(job: JobFacts, accepted: set[str]) -> bool:
    follow = job.request.follow
    # An image whose client was cut off is cancelled; the client asks again, for another job.
    unheard = job.id.startswith("img_") and job.id not in accepted
    return unheard or follow in (Follow.CANCEL, Follow.DELETE, Follow.HANG_UP)


def _of(after: Aftermath, *kinds: str) -> Iterator[Event]:
    return (event for event in after.events if event.kind in kinds)


def _job(after: Aftermath, job: str) -> JobFacts | None:
    return next((facts for facts in after.jobs if facts.id == job), None)


def _name(job: JobFacts) -> str:
    return f"{job.id} (request {job.request.number}, {job.request.form})"


def _there(known: bool) -> str:
    return "there" if known else "gone"
