"""What only a GPU shows: half precision as the device computes it, and its memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitascope_interpolator.architecture import RIFE_4_22_LITE
from vitascope_interpolator.interpolation import interpolate
from vitascope_interpolator.network import Network

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize(("exp", "scale"), [(1, 1.0), (2, 1.0), (1, 0.5)])
def test_a_gpu_stays_within_a_level_of_the_cpu(weights, network, clip, exp, scale) -> None:
    given = clip(4, 120, 200)
    gpu = Network(RIFE_4_22_LITE, weights, torch.device("cuda"))

    made = interpolate(gpu, given[1:], given[0], exp=exp, scale=scale, budget=2**28)

    expected = interpolate(network, given[1:], given[0], exp=exp, scale=scale, budget=2**28)
    assert np.mean(np.abs(made.astype(int) - expected) <= 1) >= 0.999


def test_a_gpus_memory_stays_within_the_budget(weights, clip) -> None:
    given, budget = clip(9, 480, 832), 2**30
    gpu = Network(RIFE_4_22_LITE, weights, torch.device("cuda"))
    interpolate(gpu, given[:2], None, exp=1, scale=1.0, budget=budget)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    made = interpolate(gpu, given, None, exp=2, scale=1.0, budget=budget)

    assert torch.cuda.max_memory_allocated() - before <= budget + given.nbytes + made.nbytes
