"""Log lines: a constant message, then everything that varies as fields; for people or for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum

from opentelemetry import trace

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """Whom log lines are for."""

    TEXT = "text"
    """People."""
    JSON = "json"
    """Machines: one object a line."""


class FieldFormatter(logging.Formatter):
    """``12:00:00 WARNING vitascope_platform.worker: job failed code=input_lost job_id=video_…``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Return the line with the record's extra fields behind the message."""
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in _fields(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the extra fields, the trace and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_fields(record)),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = trace.format_trace_id(context.trace_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def log_to_stderr(level: str, style: LogFormat = LogFormat.TEXT) -> None:
    """Send log lines of at least ``level`` ("debug" … "critical") to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style is LogFormat.JSON else FieldFormatter())
    # At the handler as well: what libraries log under a level of their own reaches it whatever the root's is.
    handler.setLevel(level.upper())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _fields(record: logging.LogRecord) -> list[tuple[str, object]]:
    return sorted((name, value) for name, value in vars(record).items() if name not in _OWN)
