"""What an examination of an installation finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it stands with what was looked at."""

    OK = "ok"
    SKIPPED = "skipped"
    """Not looked at, and why."""
    WARNING = "warning"
    """Works, but perhaps not as meant."""
    PROBLEM = "problem"
    """Jobs cannot be done, or not all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was looked at; a stable name.
        text: What was found. Never a secret, never a signed URL.
        remedy: What to do about it; "" where nothing need be done.
    """

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Verdict.OK, text)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Return what keeps jobs from being done."""
    return Finding(check, Verdict.PROBLEM, text, remedy)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Return what may not be as meant."""
    return Finding(check, Verdict.WARNING, text, remedy)


def skipped(check: str, text: str) -> Finding:
    """Return that something was not looked at."""
    return Finding(check, Verdict.SKIPPED, text)


def as_lines(findings: Sequence[Finding]) -> str:
    """Return a line for each finding, for people."""
    width = max((len(finding.check) for finding in findings), default=0)
    return "".join(
        f"{finding.verdict:<8} {finding.check:<{width}}  {_sentence(finding.text)} {finding.remedy}".rstrip() + "\n"
        for finding in findings
    )


def as_json(findings: Sequence[Finding]) -> str:
    """Return one object for machines."""
    return json.dumps({"ok": not has_problem(findings), "findings": [asdict(each) for each in findings]}) + "\n"


def has_problem(findings: Sequence[Finding]) -> bool:
    """Whether something keeps jobs from being done."""
    return any(finding.verdict is Verdict.PROBLEM for finding in findings)


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith(".") else f"{line}."
