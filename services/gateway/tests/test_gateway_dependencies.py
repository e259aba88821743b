"""The gateway stays light: no array or tensor library is installed with it or loaded by it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAVY = {"numpy", "torch", "av", "pillow", "diffusers", "httpx"}


def closure(package: str) -> set[str]:
    """Names of everything that installing a package brings along."""
    found, left = set(), [package]
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return found


def test_the_dependency_set_is_light() -> None:
    found = closure("vitascope-gateway")

    assert {"vitascope-platform", "starlette", "pydantic-core"} <= found
    assert found & HEAVY == set()


def test_the_closure_would_notice() -> None:
    assert "numpy" in closure("vitascope-frames")


def test_importing_the_gateway_loads_nothing_heavy_and_starts_nothing() -> None:
    code = (
        "import sys, threading, vitascope_gateway.app\n"
        f"print(sorted({HEAVY | {'PIL'}!r} & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[] 1"
