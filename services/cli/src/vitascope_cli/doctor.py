"""``vitascope doctor``: what is wrong with a cluster, and how to mend it."""

from __future__ import annotations

import argparse
import sys

from vitascope_platform.doctor import diagnose


def doctor(options: argparse.Namespace) -> int:
    """Print what is found and return the exit code: 0 without problems, else 1."""
    report, code = diagnose(options.pool, json=options.json)
    sys.stdout.write(report)
    return code
