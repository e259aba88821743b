"""Settings that every service shares: checked at start, frozen, read in ``main`` and handed down."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class WorkerSettings(BaseSettings):
    """How a stage worker treats its queue. Environment: ``VITASCOPE_WORKER_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_WORKER_", frozen=True, extra="forbid")

    concurrency: int = Field(default=2, ge=1, le=64)
    """Deliveries held at once: transfers of one overlap the compute of another."""
    ack_wait_s: float = Field(default=30.0, gt=0)
    """Silence after which the bus gives the task to another worker, seconds."""
    heartbeat_s: float = Field(default=10.0, gt=0)
    """How often a busy worker extends its delivery, seconds."""
    check_s: float = Field(default=1.0, gt=0)
    """How often a busy worker looks whether its job has ended or was superseded, and a source says that it lives."""
    max_deliveries: int = Field(default=4, ge=1)
    """Deliveries of one chunk or upload task before its job fails."""
    max_crashes: int = Field(default=3, ge=1)
    """Source attempts in a row without progress before the job fails."""
    outage_s: float = Field(default=300.0, ge=0)
    """How long an outage is waited for in place before the task is handed back, seconds."""
    max_backlog: int = Field(default=32, ge=1)
    """Tasks waiting for one of the stages behind at which this stage takes and makes no more."""
    backlog_pause_s: float = Field(default=30.0, gt=0)
    """Longest pause between two tasks for a backlog: what is behind may wait for what only this stage can make."""
    stall_timeout_s: float = Field(default=600.0, gt=0)
    """Time without a sign of life after which the process ends itself, seconds."""
    grace_s: float = Field(default=20.0, ge=0)
    """Time that running work gets at shutdown before it is handed back, seconds."""

    @model_validator(mode="after")
    def _heartbeat_beats_ack_wait(self) -> Self:
        # One missed beat must leave time for the next, or a busy moment causes duplicate work.
        if self.heartbeat_s * 3 > self.ack_wait_s:
            raise ValueError(f"heartbeat_s={self.heartbeat_s:g} must be at most a third of ack_wait_s")
        return self
