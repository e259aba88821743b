"""What really happened, and when: one line of JSON for each event."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        at_s: Seconds since the beginning.
        kind: Such as "accepted" or "fault"; who writes it says what its facts are.
    """

    at_s: float
    kind: str
    facts: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]


class History:
    """All events of a run, in memory and in a file. To be used from one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self._begun = time.monotonic()
        self._file = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self) -> None:
        """Let time begin now."""
        self._begun = time.monotonic()

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def add(self, kind: str, **facts: Any) -> None:
        """Write an event that happened now."""
        event = Event(round(self.now_s, 3), kind, facts)
        self.events.append(event)
        self.counts[kind] += 1
        self._file.write(json.dumps({"at_s": event.at_s, "kind": kind, **facts}, default=str) + "\n")
        self._file.flush()

    def of(self, *kinds: str) -> Iterator[Event]:
        """Yield the events of these kinds, in order."""
        return (event for event in self.events if event.kind in kinds)
