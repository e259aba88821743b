"""``make nemesis``: jobs and faults from a seed against a real cluster, then what must hold."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tools.cluster.cluster import Cluster
from tools.cluster.process import ServiceFailed
from tools.nemesis.cast import tormented
from tools.nemesis.crew import wake_all
from tools.nemesis.history import History
from tools.nemesis.references import WrongReference, references_of
from tools.nemesis.report import broken, report
from tools.nemesis.run import storm
from tools.nemesis.schedule import Schedule
from tools.nemesis.service_log import ServiceLog

DEFAULT_S = 120.0
INTERRUPTED = 130

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(words: Sequence[str] | None = None) -> int:
    """Run one storm; return 0 if all invariants held, 1 if not, 2 if it could not be run."""
    options = _options(words)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    schedule = Schedule.draw(seed, options.seconds)
    history = options.history or Path(tempfile.gettempdir()) / f"nemesis-{seed}.jsonl"
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    _say(
        f"nemesis: SEED={seed} SECONDS={options.seconds:g}: {len(schedule.requests)} requests, "
        f"{len(schedule.faults)} faults\nhistory: {history}\nlogs:    {_log_of(history)}"
    )
    try:
        return _run(schedule, history)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ServiceFailed, WrongReference, RuntimeError, OSError) as error:
        print(f"nemesis: error: {error}", file=sys.stderr)
        return 2


def _run(schedule: Schedule, path: Path) -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nemesis-", ignore_cleanup_errors=True)))
        history = stack.enter_context(History(path))
        log = stack.enter_context(ServiceLog(_log_of(path)))
        cluster = stack.enter_context(_awake(tormented(folder, log.heard)))
        references = references_of(schedule, cluster)
        _say(f"{len(references)} references made; the storm begins")
        after = asyncio.run(storm(schedule, references, cluster, history, folder))
        after = replace(after, tracebacks=tuple(log.tracebacks))
        found = broken(after)
        for sentence, problems in found.items():
            for problem in problems:
                history.add("broken", invariant=sentence, problem=problem)
        took_s = history.now_s
    failed = any(found.values())
    print(f"\n{report(after, found)}\n")
    verdict = "FAILED" if failed else "ok"
    print(f"{verdict}: SEED={schedule.seed} SECONDS={schedule.seconds:g}, {took_s:.0f} s; history {path}", flush=True)
    return int(failed)


@contextlib.contextmanager
def _awake(cluster: Cluster) -> Iterator[Cluster]:
    """Start and stop a cluster; at its end nobody stands still, who would not hear that it is over."""
    with cluster:
        try:
            yield cluster
        finally:
            wake_all(cluster)


def _log_of(history: Path) -> Path:
    return history.with_suffix(".log")


def _interrupt(*_: object) -> None:
    """End in order; that takes seconds, in which more of the same is not heard."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _say("\nStopping …")
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    def empty_or(kind: Callable[[str], object], default: object) -> Callable[[str], object]:
        # A make variable that is not set is an empty word.
        return lambda text: kind(text) if text else default

    parser = argparse.ArgumentParser(prog="nemesis", description=__doc__)
    parser.add_argument("--seconds", type=empty_or(_seconds, DEFAULT_S), default=DEFAULT_S)
    parser.add_argument("--seed", type=empty_or(int, None), default=None)
    parser.add_argument("--history", type=empty_or(Path, None), default=None)
    return parser.parse_args(words)


def _seconds(text: str) -> float:
    value = float(text)
    if not 5 <= value <= 24 * 3600:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
