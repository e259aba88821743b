"""Submits and polls a second with 1,000 and with 10,000 jobs known: what a gateway remembers must not slow it down."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Callable, Iterator

from bench.submit import BODY, served_app

ROUNDS = 1000


@contextlib.contextmanager
def _asking(known: int) -> Iterator[Callable[[str, str, bytes | None], bytes]]:
    with served_app("gateway", "memory", known) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def ask(method: str, path: str, body: bytes | None = None) -> bytes:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path}: HTTP {answer.status} {data[:200]!r}")
            return data

        yield ask
        connection.close()


def _rate(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(ROUNDS):
        call()
    return ROUNDS / (time.perf_counter() - begun)


async def measure() -> list[str]:
    """Return the lines of the report."""
    few, many = _rates(1_000), _rates(10_000)
    return [
        f"{name:8} {few[name]:5.0f}/s with 1,000 jobs, {many[name]:5.0f}/s with 10,000   "
        f"ratio {few[name] / many[name]:.2f}"
        for name in few
    ]


def _rates(known: int) -> dict[str, float]:
    poll = f"/v1/videos/video_{known // 2:032x}"
    with _asking(known) as ask:
        return {
            "polls": _rate(lambda: ask("GET", poll, None)),
            "lists": _rate(lambda: ask("GET", "/v1/videos?limit=20", None)),
            "submits": _rate(lambda: ask("POST", "/v1/videos", BODY)),
        }
