"""The schedule of a nemesis is a pure function of its seed and its length."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tools.nemesis.forms import FORMS, REFUSALS
from tools.nemesis.schedule import FaultKind, Follow, Schedule

ROOT = Path(__file__).parents[1]
SEEDS = range(20)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_gives_the_same_schedule_in_every_process(hash_seed: str) -> None:
    print_it = "from tools.nemesis.schedule import Schedule; print(Schedule.draw(7, 90))"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    told = subprocess.run(
        [sys.executable, "-c", print_it], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )

    assert told.stdout.strip() == str(Schedule.draw(7, 90))


def test_another_seed_gives_other_requests_and_other_faults() -> None:
    one, other = Schedule.draw(1, 60), Schedule.draw(2, 60)

    assert one.requests != other.requests
    assert one.faults != other.faults


@pytest.mark.parametrize("seed", SEEDS)
def test_two_minutes_meet_every_form_every_refusal_and_every_fault(seed: int) -> None:
    schedule = Schedule.draw(seed, 120)
    asked = {request.form for request in schedule.requests}

    assert asked == FORMS.keys() | {str(place) for place in range(len(REFUSALS))}
    assert {fault.kind for fault in schedule.faults} == set(FaultKind)
    assert {request.follow for request in schedule.requests} == set(Follow)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_asked_or_broken_after_the_time_is_over(seed: int) -> None:
    schedule = Schedule.draw(seed, 30)

    assert all(0 <= request.at_s < 30 for request in schedule.requests)
    assert all(0 <= fault.at_s <= fault.at_s + fault.lasts_s <= 30 for fault in schedule.faults)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_is_mended_before_it_is_broken_again(seed: int) -> None:
    times = defaultdict(list)
    for fault in Schedule.draw(seed, 300).faults:
        if fault.target:
            scaled = fault.kind in (FaultKind.SCALE_UP, FaultKind.SCALE_DOWN)
            times[fault.target, -1 if scaled else fault.place].append((fault.at_s, fault.at_s + fault.lasts_s))

    assert all(end < begin for spans in times.values() for (_, end), (begin, _) in itertools.pairwise(spans))
