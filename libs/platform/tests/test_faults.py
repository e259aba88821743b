"""Fault points: off unless asked for, and deadly once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vitascope_core.errors import InvalidSettings
from vitascope_platform.environment import ServiceSettings, read_settings
from vitascope_platform.faults import FaultPoint, Faults, FaultSettings

POINT, MARKER = "VITASCOPE_FAULT_POINT", "VITASCOPE_FAULT_MARKER"
PROGRAM = """
from vitascope_platform.faults import FaultPoint, Faults, FaultSettings
faults = Faults(FaultSettings())
faults.reach(FaultPoint.BEFORE_ACK)
print("past the other", flush=True)
faults.reach(FaultPoint.BEFORE_RECORD)
print("alive", flush=True)
"""


def test_nothing_happens_unless_it_is_asked_for() -> None:
    for faults in (Faults(), Faults(FaultSettings()), Faults(read_settings(ServiceSettings).fault)):
        for point in FaultPoint:
            faults.reach(point)


def test_a_process_dies_at_its_point_the_first_time_alone(tmp_path: Path) -> None:
    env = {POINT: "before_record", MARKER: str(tmp_path / "died")}
    command = [sys.executable, "-c", PROGRAM]
    runs = [subprocess.run(command, env=env, capture_output=True, text=True, check=False) for _ in range(2)]

    assert [run.returncode for run in runs] == [-9, 0]
    assert [run.stdout.split("\n")[-2] for run in runs] == ["past the other", "alive"]


def test_a_process_dies_at_a_later_visit_when_told_so(tmp_path: Path) -> None:
    env = {POINT: "before_record", MARKER: str(tmp_path / "died"), "VITASCOPE_FAULT_NTH": "2"}
    program = PROGRAM + "faults.reach(FaultPoint.BEFORE_RECORD)\nprint('past it')\n"
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout.split("\n")[-2]) == (-9, "alive")


@pytest.mark.parametrize("environment", [{POINT: "before_ack"}, {MARKER: "/nowhere"}], ids=["no marker", "no point"])
def test_point_and_marker_need_each_other(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match="need each other"):
        read_settings(ServiceSettings)
