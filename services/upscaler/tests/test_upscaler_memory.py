"""Peaks of memory: within the budget, whatever is asked for, and the same however long a chunk is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.upscaling import upscale, upscaled

PEAK = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from bench.literal_esrgan import seeded_weights
from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.compiled import MEMORY_SHARE, compiled_parts
from vitascope_upscaler.network import network_of
from vitascope_upscaler.upscaling import upscale

torch.set_num_threads(1)
told = json.loads(sys.argv[1])
kind = {"Compact": Compact, "Rrdb": Rrdb}[told["kind"]]

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

net = network_of(kind(*told["sizes"]), seeded_weights(kind(*told["sizes"]).shapes(), 1), torch.device("cpu"))
budget, counts_on = told["budget"], told["budget"]
parts = None
if told["compiled"]:
    parts, counts_on = compiled_parts(net), int(budget * MEMORY_SHARE)
frames = np.zeros((2, *told["frame"]), np.uint8)
options = {"budget": counts_on, "banded": told["banded"], "parts": parts}
upscale(net, frames[:, :100], told["scale"], **options)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = peak()
made = upscale(net, frames, told["scale"], **options)
# Beside what is given and made there is one frame that is on its way from one to the other.
print((peak() - before - frames.nbytes - 1.5 * made.nbytes) / budget)
"""

COMPACT, RRDB = Compact(64, 2, 4), Rrdb(32, 1, 16, 1, 2)
MIB = 2**20


def peak_of(network, budget, scale=4.0, channels=3, *, banded=False, compiled=False) -> float:
    """Return the peak of memory as a share of the budget."""
    sizes = [getattr(network, name) for name in network.__slots__]
    told = {"kind": type(network).__name__, "sizes": sizes, "budget": budget, "scale": scale}
    told |= {"frame": (240, 320, channels), "banded": banded, "compiled": compiled}
    # What is freed goes back at once, as it does by itself for the tensors of larger frames.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-W", "ignore", "-c", PEAK, json.dumps(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240, env=env)
    return float(done.stdout)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are told elsewhere")


@on_linux
@pytest.mark.parametrize(
    "case",
    [
        pytest.param({"network": COMPACT, "budget": 45 * MIB}, id="compact"),
        pytest.param({"network": RRDB, "budget": 86 * MIB}, id="rrdb"),
        pytest.param({"network": RRDB, "budget": 86 * MIB, "scale": 3.0}, id="resized"),
        pytest.param({"network": RRDB, "budget": 86 * MIB, "channels": 4}, id="with opacity"),
        pytest.param({"network": RRDB, "budget": 40 * MIB, "banded": True}, id="in bands"),
    ],
)
def test_the_peak_of_memory_is_within_the_budget(case) -> None:
    assert 0.2 < peak_of(**case) <= 1


@on_linux
@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "budget"), [(COMPACT, 90 * MIB), (RRDB, 150 * MIB)], ids=lambda value: getattr(value, "name", None)
)
def test_that_of_a_compiled_network_is_as_well(network, budget) -> None:
    assert 0.05 < peak_of(network, budget, compiled=True) <= 1


@pytest.mark.parametrize("scale", [4, 1.5])
def test_frames_that_are_taken_one_by_one_are_those_of_all(network, clip, scale) -> None:
    net, frames = network(Compact(8, 1, 4)), clip(5, 20, 30)

    parts = list(upscaled(net, frames, scale, budget=2**30))

    assert [len(part) for part in parts] == [1] * 5
    assert np.array_equal(np.concatenate(parts), upscale(net, frames, scale, budget=2**30))


def test_no_more_enlarged_frames_are_held_in_a_long_chunk(network, clip) -> None:
    net, peaks = network(Compact(8, 0, 4)), []
    for count in (4, 40):
        frames = clip(count, 96, 128)
        tracemalloc.start()
        for part in upscaled(net, frames, 4, budget=2**30):
            del part
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    enlarged = 16 * 96 * 128 * 3

    assert peaks[0] > 2 * enlarged
    assert peaks[1] < peaks[0] + enlarged / 2
