"""``make bench``."""

from __future__ import annotations

import asyncio

from bench import overlap, submit


def main() -> None:
    for name, measure in (("submit", submit.measure), ("decode overlap", overlap.measure)):
        print(f"{name}")
        for line in asyncio.run(measure()):
            print(f"  {line}")


if __name__ == "__main__":
    main()
