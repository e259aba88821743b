"""The metrics are those that the documentation lists."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

import vitascope_platform.telemetry  # noqa: F401 - registers the metrics

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_documentation_lists_every_metric_with_its_labels() -> None:
    listed = dict(re.findall(r"^\| `(vitascope_\w+)` \| (\w+) \|", DOCS.read_text(), re.M))
    there = {}
    for family in REGISTRY.collect():
        if family.name.startswith("vitascope_"):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            there[family.name + suffix] = {"info": "gauge"}.get(family.type, family.type)

    assert listed == there
