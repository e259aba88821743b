"""What only a GPU shows: half precision as the device computes it, batches, and its memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.network import network_of
from vitascope_upscaler.upscaling import upscale

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

RRDB, X2, COMPACT = Rrdb(64, 3, 32, 1, 2), Rrdb(64, 3, 32, 2, 2), Compact(64, 16, 4)


@pytest.fixture
def gpu(weights_of):
    return lambda architecture: network_of(architecture, weights_of(architecture), torch.device("cuda"))


@pytest.mark.parametrize("architecture", [RRDB, X2, COMPACT], ids=lambda each: each.name)
@pytest.mark.parametrize("scale", [4, 1.5])
def test_a_gpu_stays_within_a_level_of_the_cpu(gpu, network, clip, architecture, scale) -> None:
    frames = np.concatenate((clip(3, 97, 131), clip(3, 97, 131)[..., :1]), 3)

    made = upscale(gpu(architecture), frames, scale, budget=2**30)

    expected = upscale(network(architecture), frames, scale, budget=2**30)
    assert np.mean(np.abs(made.astype(int) - expected) <= 1) >= 0.999


@pytest.mark.parametrize(("architecture", "budget"), [(RRDB, 2**30), (COMPACT, 2**28)], ids=["rrdb", "compact"])
def test_a_gpus_memory_stays_within_the_budget(gpu, clip, architecture, budget) -> None:
    net, frames = gpu(architecture), clip(4, 480, 832)
    upscale(net, frames[:1], 4, budget=budget)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    upscale(net, frames, 4, budget=budget)

    assert torch.cuda.max_memory_allocated() - before <= budget + frames.nbytes
