"""Each invariant of the nemesis is red on a trace that breaks it, and only on such a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tools.nemesis.aftermath import Aftermath, JobFacts
from tools.nemesis.cast import MAX_DELIVERIES
from tools.nemesis.history import Event
from tools.nemesis.report import broken, report
from tools.nemesis.schedule import Follow, Request, Schedule

LEFT = "no intermediate object, message or progress record is left"
FILES = {"video.mp4": "a digest", "thumbnail.webp": "another"}
GATEWAY = "gateway-0/1"
UNREAD = {"code": "result_unavailable", "again": "false", "message": ""}

Change = Callable[[Aftermath], Aftermath]


def event(at_s: float, kind: str, **facts: Any) -> Event:
    return Event(at_s, kind, facts)


def seen(at_s: float, job: str, status: str, progress: int = 0, code: str = "", gateway: str = GATEWAY) -> Event:
    return event(at_s, "seen", job=job, gateway=gateway, status=status, progress=progress, code=code)


def calm() -> Aftermath:
    """A film that completed, one that was cancelled, one that was deleted, a poison, a refusal: all as it should be."""
    requests = (
        Request(0, 1.0, "film", 0, 0),
        Request(1, 2.0, "film", 0, 0, Follow.CANCEL),
        Request(2, 3.0, "clip", 1, 0, Follow.DELETE),
        Request(3, 4.0, "poison", 0, 0),
        Request(4, 5.0, "0", 0, 0, Follow.REFUSE),
        Request(5, 6.0, "picture", 0, 0),
        Request(6, 7.0, "picture", 1, 0),
    )
    jobs = (
        JobFacts("video_0", requests[0], "completed", "", "t0", True, 1000, 4000, 1, {"t0": FILES}, (200, 200)),
        JobFacts("video_1", requests[1], "cancelled", "cancelled", "t1", shown=(200, 200)),
        JobFacts("video_2", requests[2], "completed", "", "t2", known=False, shown=(404, 404)),
        JobFacts("video_3", requests[3], "failed", "worker_crashed", "t3", shown=(200, 200)),
        JobFacts("img_5", requests[5], "failed", "input_lost", "t5"),
        JobFacts("img_6", requests[6], "completed", "", "t6", tokens={"t6": FILES}),
    )
    events = (
        *(event(n, "accepted", number=n, job=f"video_{n}") for n in range(4)),
        event(1.0, "spec", job="video_0"),
        seen(1.5, "video_0", "in_progress", 40),
        seen(1.5, "video_2", "in_progress", 40),
        event(2.0, "cancelled", job="video_1", token="t1"),
        event(2.1, "deleting", job="video_2"),
        seen(2.2, "video_2", "absent"),
        event(2.3, "deleted", job="video_2", status=200),
        event(3.0, "fault", number=0, fault="kill", target="uploader", begun_s=2.0, ended_s=3.0),
        event(
            3.0, "fault", number=1, fault="delete a chunk", target="", begun_s=3.0, ended_s=3.0, job="img_5", key="k"
        ),
        event(3.5, "ended", process="inverter-0", code=-9, why="itself"),
        event(3.6, "ended", process="inverter-1", code=0, why="told"),
        event(3.7, "later", number=0, answer=[429, "rate_limit_exceeded", "2"]),
        event(3.8, "refusal", number=4, wanted=[400, "invalid_value", ""], got=[400, "invalid_value", "size"]),
        event(3.9, "failed answer", number=5, form="picture", status=500, code="input_lost", again="false", message=""),
        event(3.9, "failed answer", number=6, form="picture", status=503, **UNREAD),
        event(4.0, "end", job="video_0", state="completed", code="", token="t0"),
        seen(4.1, "video_0", "completed", 100),
    )
    references = {("film", 0): FILES, ("picture", 1): FILES}
    return Aftermath(Schedule(7, 10.0, requests, ()), jobs, references, events=events)


def with_job(number: int, **changes: Any) -> Change:
    def change(after: Aftermath) -> Aftermath:
        jobs = list(after.jobs)
        jobs[number] = replace(jobs[number], **changes)
        return replace(after, jobs=tuple(jobs))

    return change


def with_events(*events: Event) -> Change:
    return lambda after: replace(after, events=(*after.events, *events))


def without(kind: str, number: int) -> Change:
    """Leave out the events of a kind that are about a request."""
    return lambda after: replace(
        after, events=tuple(e for e in after.events if e.kind != kind or e.facts.get("number") != number)
    )


def with_more(**changes: Any) -> Change:
    return lambda after: replace(after, **changes)


def test_nothing_is_broken_where_all_is_as_it_should_be() -> None:
    assert not any(broken(calm()).values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("accepted", 0), "every request was answered"),
        (with_job(3, state="", code=""), "every accepted job ended, exactly once"),
        (
            with_events(event(5.0, "end", job="video_0", state="cancelled", code="cancelled", token="t9")),
            "every accepted job ended, exactly once",
        ),
        (with_events(event(5.0, "accepted", number=0, job="video_9")), "every accepted job ended, exactly once"),
        (with_job(1, token="t8"), "every accepted job ended, exactly once"),
        (
            with_events(seen(5.0, "video_0", "failed", 99, "lost", "gateway-1/2")),
            "what was shown as ended stayed as it was",
        ),
        (
            with_events(seen(5.0, "video_3", "failed", 80, "worker_crashed"), seen(6.0, "video_3", "in_progress", 80)),
            "what was shown as ended stayed as it was",
        ),
        (with_events(seen(5.0, "video_1", "queued", 40), seen(6.0, "video_1", "queued")), "progress never went back"),
        (with_events(seen(5.0, "video_1", "in_progress", 100)), "progress never went back"),
        (with_events(seen(5.0, "video_0", "absent")), "nothing vanished, nothing deleted revived"),
        (with_events(seen(5.0, "video_2", "completed", 100)), "nothing vanished, nothing deleted revived"),
        (with_job(2, shown=(404, 200)), "nothing vanished, nothing deleted revived"),
        (with_job(0, shown=(200, 404)), "nothing vanished, nothing deleted revived"),
        (
            with_events(event(5.0, "deleted", job="video_2", status=500)),
            "nothing vanished, nothing deleted revived",
        ),
        (with_job(0, tokens={"t0": {**FILES, "video.mp4": "x"}}), "files are those of the undisturbed job"),
        (with_job(0, tokens={"t0": {"video.mp4": "a digest"}}), "files are those of the undisturbed job"),
        (with_job(0, tokens={"t0": FILES, "t9": FILES}), "one set of files for each completed job"),
        (with_job(1, tokens={"t9": {}}), "one set of files for each completed job"),
        (with_job(2, tokens={"t2": FILES}), "one set of files for each completed job"),
        (
            with_more(objects=("jobs/video_0/1/denoise/0-0",)),
            LEFT,
        ),
        (with_more(messages=("video_0",)), LEFT),
        (with_more(records=("video_0",)), LEFT),
        (with_job(1, state="failed", code="input_lost"), "only jobs failed that had a reason"),
        (with_job(1, state="failed", code="worker_crashed"), "only jobs failed that had a reason"),
        (with_job(3, state="completed", code="", tokens={"t3": {}}), "only jobs failed that had a reason"),
        (
            with_events(event(5.0, "refusal", number=4, wanted=[400, "x", "size"], got=[200, None, None])),
            "refusals had their types",
        ),
        (
            with_events(event(5.0, "later", number=0, answer=[429, "rate_limit_exceeded", None])),
            "refusals had their types",
        ),
        (with_events(event(5.0, "later", number=0, answer=[503, None, "2"])), "refusals had their types"),
        (
            with_events(event(5.0, "failed answer", number=5, form="picture", status=500, code=None, again=None)),
            "refusals had their types",
        ),
        (
            with_events(event(5.0, "failed answer", number=5, form="picture", status=503, **UNREAD)),
            "refusals had their types",
        ),
        (
            with_events(event(5.0, "failed answer", number=6, form="picture", status=503, **{**UNREAD, "again": None})),
            "refusals had their types",
        ),
        (
            with_events(event(5.0, "ended", process="uploader-0", code=1, why="itself")),
            "processes ended only when they were made to",
        ),
        (
            with_events(event(5.0, "ended", process="uploader-0", code=1, why="told")),
            "processes ended only when they were made to",
        ),
        (with_more(dead=("gateway-0",)), "processes ended only when they were made to"),
        (with_more(gateway_peak_bytes=2**30), "gateways stayed small"),
        (with_more(tracebacks=("gateway-0, line 7",)), "no service met an error that it does not know"),
    ],
)
def test_a_trace_that_breaks_an_invariant_breaks_it_alone(change: Change, sentence: str) -> None:
    found = broken(change(calm()))

    assert {name for name, problems in found.items() if problems} == {sentence}


def test_files_may_differ_only_where_nothing_completed() -> None:
    cancelled = with_job(0, state="cancelled", code="cancelled", tokens={})(calm())

    assert not broken(cancelled)["files are those of the undisturbed job"]
    assert broken(cancelled)["only jobs failed that had a reason"]


@pytest.mark.parametrize(("faults", "excused"), [(MAX_DELIVERIES - 1, False), (MAX_DELIVERIES, True)])
def test_a_job_may_crash_only_after_as_many_faults_as_it_has_deliveries(faults: int, excused: bool) -> None:
    # One kill and one death are in the calm trace already.
    more = [
        event(3.0, "fault", number=n, fault="stall", target="broker", begun_s=3.0, ended_s=3.0)
        for n in range(faults - 2)
    ]
    crashed = with_job(0, state="failed", code="worker_crashed", tokens={})(with_events(*more)(calm()))

    assert (not broken(crashed)["only jobs failed that had a reason"]) == excused


def test_the_report_names_what_is_broken() -> None:
    after = with_more(messages=("video_0",))(calm())
    lines = report(after, broken(after)).splitlines()

    assert "FAILED  no intermediate object, message or progress record is left" in lines
    assert "        message of video_0" in lines
    assert "ok      files are those of the undisturbed job" in lines
