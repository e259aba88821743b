"""What is asked and what is broken, and when: a pure function of a seed and a length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tools.cluster.cluster import DENOISER, GATEWAY, UPLOADER
from tools.nemesis.cast import ACK_WAIT_S, BROKER, INVERTER, REPLICAS, STORE
from tools.nemesis.forms import FORMS, POISON, REFUSALS, SEEDS
from vitascope_core.job import JobKind
from vitascope_platform.faults import FaultAct, FaultPoint

T = TypeVar("T")

FIRST_FAULT_S = 2.0
"""Time that the first jobs get, so that the first fault meets some at work."""

_REQUEST_GAP_S = 0.65
_FAULT_GAP_S = 1.4
_CALM_S = 1.5
"""Least time between two faults of one target, so that it is met at work."""
_POISON_EVERY_S = 90.0
_POISON_TAIL_S = 40.0
"""A poison kills its way through all its deliveries: this long before the end no new one comes."""


class Follow(StrEnum):
    """What becomes of a job that was accepted."""

    KEEP = "keep"
    CANCEL = "cancel"
    DELETE = "delete"
    HANG_UP = "hang up"
    """The client of an image leaves before it is there, which cancels the job."""
    REFUSE = "refuse"
    """Nothing: the request must be refused."""


class FaultKind(StrEnum):
    """What is broken."""

    KILL = "kill"
    FREEZE = "freeze"
    TERMINATE = "terminate"
    SCALE_UP = "scale up"
    SCALE_DOWN = "scale down"
    POINT = "fault point"
    STOP = "stop"
    STALL = "stall"
    DUPLICATE = "duplicate tasks"
    ROB = "delete a chunk"
    SPOIL = "damage a chunk"


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        at_s: When it is sent, seconds from the beginning.
        form: Name in `FORMS`; of a refusal, its place in `REFUSALS`.
        gateway: Which of those that are there then, modulo their number.
        after_s: Seconds from the answer (an image: from the request) to what ``follow`` says.
    """

    number: int
    at_s: float
    form: str
    seed: int
    gateway: int
    follow: Follow = Follow.KEEP
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        target: A service, the broker, the store; "" for what is done to a job.
        place: Which of the target's processes, of the running jobs or of their chunks, modulo their number; in a
            chunk that is damaged, also which of its bytes.
        lasts_s: Seconds until it is mended; a fault point may be reached in this time.
        point: See `FaultPoint`.
        act: See `FaultAct`.
        dies: Whether a process that stands still at its point is killed there rather than woken up.
    """

    number: int
    at_s: float
    kind: FaultKind
    target: str = ""
    place: int = 0
    lasts_s: float = 0.0
    point: str = ""
    act: str = ""
    dies: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """All of a run."""

    seed: int
    seconds: float
    requests: tuple[Request, ...]
    faults: tuple[Fault, ...]

    @classmethod
    def draw(cls, seed: int, seconds: float) -> Schedule:
        """Return the schedule of a seed and a length."""
        # Two sources: more faults must not mean other requests.
        asked = _requests(random.Random(f"requests {seed}"), seconds)
        return cls(seed, seconds, tuple(asked), tuple(_faults(random.Random(f"faults {seed}"), seconds)))


_FORM_DECK = (
    *("film", "inverted film", "clip", "picture", "pictures", "inverted pictures", "inverted clip") * 4,
    *("inverted film", "inverted films", "hopeless") * 2,
    *(str(place) for place in range(len(REFUSALS))),
)
_VIDEO_DECK = (*(Follow.KEEP,) * 7, *(Follow.CANCEL, Follow.DELETE) * 2)
_IMAGE_DECK = (*(Follow.KEEP,) * 5, Follow.HANG_UP)

_POINTS = {
    DENOISER: (
        FaultPoint.BEFORE_RECORD,
        FaultPoint.BEFORE_PUBLISH,
        FaultPoint.AFTER_FIRST_CHUNK,
        FaultPoint.BEFORE_CHECKPOINT,
        FaultPoint.AFTER_CHECKPOINT,
        FaultPoint.BEFORE_ACK,
    ),
    INVERTER: (FaultPoint.BEFORE_RECORD, FaultPoint.BEFORE_PUBLISH, FaultPoint.BEFORE_ACK),
    UPLOADER: (FaultPoint.BEFORE_END, FaultPoint.BEFORE_CLEANUP, FaultPoint.BEFORE_ACK),
}
_WORKERS = (DENOISER, INVERTER, UPLOADER)
_FAULT_DECK: tuple[tuple[FaultKind, str], ...] = (
    *((FaultKind.KILL, service) for service in (*_WORKERS, *_WORKERS, GATEWAY)),
    *((FaultKind.FREEZE, service) for service in (*_WORKERS, *_WORKERS, GATEWAY)),
    *((FaultKind.TERMINATE, service) for service in (*_WORKERS, GATEWAY)),
    *((FaultKind.POINT, service) for service in _WORKERS * 2),
    *((kind, service) for kind in (FaultKind.SCALE_UP, FaultKind.SCALE_DOWN) for service in (*_WORKERS, GATEWAY)),
    *((kind, server) for kind in (FaultKind.KILL, FaultKind.STOP, FaultKind.STALL) for server in (BROKER, STORE)),
    *((FaultKind.DUPLICATE, ""),) * 4,
    (FaultKind.ROB, ""),
    (FaultKind.SPOIL, ""),
)


def _requests(draw: random.Random, seconds: float) -> Iterator[Request]:
    forms = _dealt(draw, _FORM_DECK)
    follows = {JobKind.VIDEO: _dealt(draw, _VIDEO_DECK), JobKind.IMAGE: _dealt(draw, _IMAGE_DECK)}
    poisons = sorted(_poison_times(draw, seconds))
    number, at_s = 0, 0.0
    while (at_s := at_s + draw.uniform(0.2, 2 * _REQUEST_GAP_S - 0.2)) < seconds:
        if poisons and poisons[0] <= at_s:
            poisons.pop(0)
            form, follow = POISON, Follow.KEEP
        elif (form := next(forms)).isdecimal():
            follow = Follow.REFUSE
        else:
            follow = next(follows[FORMS[form].kind])
        after_s = draw.uniform(0.0, 0.8 if follow is Follow.HANG_UP else 5.0)
        yield Request(number, at_s, form, draw.randrange(SEEDS), draw.randrange(100), follow, after_s)
        number += 1


def _poison_times(draw: random.Random, seconds: float) -> Iterator[float]:
    room_s = seconds - _POISON_TAIL_S
    for _ in range(int(max(0.0, room_s) // _POISON_EVERY_S) + (room_s > 0)):
        yield draw.uniform(0.0, room_s)


def _faults(draw: random.Random, seconds: float) -> Iterator[Fault]:
    deck, free_at = _dealt(draw, _FAULT_DECK), dict[tuple[str, int], float]()
    number, at_s = 0, FIRST_FAULT_S
    while at_s < seconds:
        kind, target = next(deck)
        fault = _fault(draw, number, at_s, kind, target)
        at_s += draw.uniform(0.2, 2 * _FAULT_GAP_S - 0.2)
        who = _whom(fault)
        if any(free_at.get(each, 0.0) > fault.at_s for each in who) or fault.at_s + fault.lasts_s > seconds:
            continue
        free_at |= dict.fromkeys(who, fault.at_s + fault.lasts_s + _CALM_S)
        yield fault
        number += 1


def _fault(draw: random.Random, number: int, at_s: float, kind: FaultKind, target: str) -> Fault:
    place = draw.randrange(REPLICAS.get(target, 10**6))
    point, act, dies = "", "", False
    if kind in (FaultKind.FREEZE, FaultKind.STALL):
        lasts_s = ACK_WAIT_S + draw.uniform(0.5, 3.0)
    elif kind is FaultKind.POINT:
        point, act, dies = draw.choice(_POINTS[target]), draw.choice(tuple(FaultAct)), draw.random() < 0.4
        lasts_s = 5.0
    elif kind in (FaultKind.SCALE_UP, FaultKind.SCALE_DOWN):
        lasts_s, place = draw.uniform(3.0, 10.0), 0
    elif kind in (FaultKind.DUPLICATE, FaultKind.ROB, FaultKind.SPOIL):
        lasts_s = 0.0
    else:
        lasts_s = draw.uniform(0.2, 4.0)
    return Fault(number, at_s, kind, target, place, lasts_s, str(point), str(act), dies)


def _whom(fault: Fault) -> tuple[tuple[str, int], ...]:
    """Return the targets that must have been left in peace for a moment: how many there are is one itself."""
    if fault.kind in (FaultKind.SCALE_UP, FaultKind.SCALE_DOWN):
        return ((fault.target, -1),)
    return ((fault.target, fault.place),) if fault.target else ()


def _dealt(draw: random.Random, deck: Sequence[T]) -> Iterator[T]:
    """Yield cards for ever; each full round has every card, so that a short run already meets all."""
    while True:
        yield from draw.sample(deck, len(deck))
