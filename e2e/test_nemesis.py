"""The nemesis itself: a storm from a fixed seed breaks nothing, and an interrupted one leaves nothing running."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 60
"""Of faults; the start, the references and the calm behind them take half as long again."""


def nemesis(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tools.nemesis", f"--history={folder / 'history.jsonl'}", *words]
    root = Path(__file__).parents[1]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started and that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has just ended
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_storm_breaks_nothing(tmp_path: Path) -> None:
    with nemesis(tmp_path, f"--seconds={SECONDS}", "--seed=7") as process:
        told = process.communicate()[0]

    assert process.returncode == 0, told
    assert f"ok: SEED=7 SECONDS={SECONDS}" in told


def test_a_storm_that_is_interrupted_leaves_no_process(tmp_path: Path) -> None:
    with nemesis(tmp_path, "--seconds=60", "--seed=7") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "accepted" in line:
                break
        begun = children(process.pid)
        process.send_signal(signal.SIGINT)
        process.communicate()

    assert process.returncode == 130
    assert len(begun) > 8
    assert not [pid for pid in begun if Path(f"/proc/{pid}").exists()]
