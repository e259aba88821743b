"""Places in a worker's path where a test lets its process die or stand still. Off unless a setting asks for one."""

from __future__ import annotations

import logging
import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

log = logging.getLogger(__name__)


class FaultPoint(StrEnum):
    """Between which two of its writes a worker is met."""

    BEFORE_RECORD = "before_record"
    """A chunk is stored, and nobody knows of it yet."""
    BEFORE_PUBLISH = "before_publish"
    """A chunk is recorded, and the next stage is not told."""
    AFTER_FIRST_CHUNK = "after_first_chunk"
    """A task's first chunk is announced, and those after it are not there yet."""
    BEFORE_CHECKPOINT = "before_checkpoint"
    """A checkpoint is stored, and the record points to the one before it."""
    AFTER_CHECKPOINT = "after_checkpoint"
    """The record points to a checkpoint, and the one before it is still there."""
    BEFORE_ACK = "before_ack"
    """All of a task is done, and the bus does not know."""
    BEFORE_END = "before_end"
    """Files and manifest are stored, and the job has not ended."""
    BEFORE_CLEANUP = "before_cleanup"
    """The job has ended, and what it kept while it ran is still there."""


class FaultAct(StrEnum):
    """What happens to the process."""

    KILL = "kill"
    """It ends as the kernel would end it: nothing is tidied up."""
    STOP = "stop"
    """It stands still until somebody sends SIGCONT, and then goes on as if nothing had happened."""


class FaultSettings(BaseSettings):
    """Where a process is to die or to stand still, for tests. Environment: ``VITASCOPE_FAULT_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_FAULT_", frozen=True, extra="forbid")

    point: FaultPoint | None = None
    """The place; None: nowhere."""
    marker: Path | None = None
    """A file that is made when the point is reached. While it is there nothing happens, so that others get through."""
    act: FaultAct = FaultAct.KILL
    """What happens there."""
    nth: int = Field(default=1, ge=1)
    """At which of the process's visits to the point it happens."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        # Without a marker a process that is started again would die for ever.
        if (self.point is None) != (self.marker is None):
            raise ValueError("point and marker need each other")
        return self


class Faults:
    """Kills or stops this process at its point, unless any process with the same marker was before it."""

    def __init__(self, settings: FaultSettings | None = None) -> None:
        self._point = settings.point if settings else None
        self._marker = settings.marker if settings else None
        self._visits_left = settings.nth if settings else 0
        self._signal = signal.SIGSTOP if settings and settings.act is FaultAct.STOP else signal.SIGKILL

    def reach(self, point: FaultPoint) -> None:
        """Die or stand still here if this is the point, the visit that is meant, and the marker is not there yet."""
        if point is not self._point or self._marker is None:
            return
        self._visits_left -= 1
        if self._visits_left > 0:
            return
        try:
            self._marker.touch(exist_ok=False)
        except FileExistsError:
            return
        log.critical("at a fault point", extra={"point": str(point), "signal": self._signal.name})
        os.kill(os.getpid(), self._signal)
