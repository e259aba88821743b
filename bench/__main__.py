"""``make bench``: all measurements, or those named on the command line."""

from __future__ import annotations

import asyncio
import sys

from bench import checkpoint, demo, hop, interpolate, known, latency, overlap, segments, submit, upscale

MEASUREMENTS = {
    "submit": submit.measure,
    "known": known.measure,
    "overlap": overlap.measure,
    "hop": hop.measure,
    "latency": latency.measure,
    "checkpoint": checkpoint.measure,
    "interpolate": interpolate.measure,
    "upscale": upscale.measure,
    "segments": segments.measure,
    "demo": demo.measure,
}


def main(names: list[str]) -> None:
    for name in names or MEASUREMENTS:
        print(name)
        for line in asyncio.run(MEASUREMENTS[name]()):
            print(f"  {line}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
