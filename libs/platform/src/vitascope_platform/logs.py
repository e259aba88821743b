"""Log lines for people: a constant message, then everything that varies as fields."""

from __future__ import annotations

import logging
import sys

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """``12:00:00 WARNING vitascope_platform.worker: job failed code=input_lost job_id=video_…``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line with the record's extra fields behind the message."""
        fields = {name: value for name, value in vars(record).items() if name not in _OWN}
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in sorted(fields.items()))


def log_to_stderr(level: str) -> None:
    """Send log lines of at least ``level`` ("debug" … "critical") to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
