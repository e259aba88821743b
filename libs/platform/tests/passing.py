"""How a test lets time pass for an adapter: by moving a clock, or by waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Passing:
    """The times that a bus under test was made with.

    Attributes:
        wait: Returns once so many seconds have passed for the bus.
        patience_s: How late the bus may be with what is due; 0 where time stands still otherwise.
    """

    wait: Callable[[float], Awaitable[None]]
    ack_wait_s: float
    window_s: float
    patience_s: float

    async def __call__(self, seconds: float) -> None:
        await self.wait(seconds)
