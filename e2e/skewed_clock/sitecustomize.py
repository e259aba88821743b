"""A wall clock that goes wrong: ``WALL_CLOCK_SKEW_S`` seconds fast, or slow if negative. The monotonic clock is right.

Python imports this at its start where the folder is in ``PYTHONPATH``. ``datetime`` does not come through here, so that
signed requests keep their times: S3 refuses clocks that are a quarter of an hour wrong, which is another fault.
"""

from __future__ import annotations

import os
import time

_SKEW_S = int(os.environ.get("WALL_CLOCK_SKEW_S", "0"))
_time, _time_ns = time.time, time.time_ns


def _skewed() -> float:
    return _time() + _SKEW_S


def _skewed_ns() -> int:
    return _time_ns() + _SKEW_S * 1_000_000_000


if _SKEW_S:
    time.time, time.time_ns = _skewed, _skewed_ns
