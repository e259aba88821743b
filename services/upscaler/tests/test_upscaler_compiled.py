"""Networks that PyTorch compiled: the same frames, graphs for all sizes, and none that a chunk waits for."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import UpscaleOptions
from vitascope_frames.chunk import Chunk
from vitascope_upscaler import compiled
from vitascope_upscaler.architecture import Compact, Rrdb
from vitascope_upscaler.division import Division
from vitascope_upscaler.settings import UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler
from vitascope_weights.device import Device

# PyTorch's compiler still uses what PyTorch deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

NETWORKS = [
    pytest.param(Compact(8, 2, 4), id="compact"),
    # Two graphs, half a minute.
    pytest.param(Rrdb(8, 1, 4, 1, 2), id="rrdb", marks=pytest.mark.long),
]
SIZES = [(97, 131), (131, 97), (120, 120), (30, 400), (12, 20), (1, 1)]


@pytest.fixture(scope="module", autouse=True)
def no_cache(tmp_path_factory):
    """Nothing that was compiled before is found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        yield


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request, weights_of, tmp_path_factory) -> tuple[Upscaler, Upscaler]:
    """The same network as it is and compiled."""
    path = tmp_path_factory.mktemp("weights") / "x4.pth"
    torch.save({"params": weights_of(request.param)}, path)
    settings = UpscalerSettings(str(path), scales=(4.0, 3.0), device=Device.CPU)
    pair = Upscaler(settings), Upscaler(replace(settings, compile=True))
    for upscaler in pair:
        upscaler.load()
    return pair


def chunk_of(frames) -> Chunk:
    return Chunk(frames, 0, 0, 0, last=True, fps=Fraction(16))


@pytest.mark.parametrize("scale", [4, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_compiled_network_makes_the_same_frames(pair, clip, size, scale) -> None:
    plain, made = (each.apply(chunk_of(clip(2, *size)), UpscaleOptions(scale)).frames.astype(int) for each in pair)

    assert np.abs(made - plain).max() <= 1
    assert np.mean(made == plain) > 0.999


def test_what_was_compiled_at_start_serves_every_size_in_any_thread(pair, clip, monkeypatch) -> None:
    monkeypatch.setattr(compiled, "_OTHERWISE", "fail_on_recompile")
    compiled_one = pair[1]

    with ThreadPoolExecutor(1) as other:
        for size in SIZES:
            chunk = chunk_of(clip(2, *size))
            expected = compiled_one.apply(chunk, UpscaleOptions()).frames
            assert np.array_equal(other.submit(compiled_one.apply, chunk, UpscaleOptions()).result().frames, expected)
    monkeypatch.setattr("vitascope_upscaler.upscaling.divided", lambda *_, **__: Division(1, 400, 130))
    tall = chunk_of(clip(1, 400, 90))
    assert compiled_one.apply(tall, UpscaleOptions()).frames.shape == (1, 1600, 360, 3)


def test_all_that_is_compiled_must_be_kept(weights_folder) -> None:
    settings = UpscalerSettings(str(weights_folder), device=Device.CPU, compile=True, loaded_models=2)

    with pytest.raises(InvalidSettings, match="loaded_models must be at least 3, got 2"):
        Upscaler(settings).load()


WITHOUT_COMPILER = """
import sys
from vitascope_core.errors import InvalidSettings
from vitascope_upscaler.settings import UpscalerSettings
from vitascope_upscaler.upscaler import Upscaler

try:
    Upscaler(UpscalerSettings(sys.argv[1], scales=(4.0,), device="cpu", compile=True)).load()
except InvalidSettings as error:
    print(error)
"""


def test_where_nothing_can_be_compiled_that_is_told_at_start(weights_of, tmp_path) -> None:
    torch.save({"params": weights_of(Compact(8, 2, 4))}, tmp_path / "x4.pth")
    env = {**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", WITHOUT_COMPILER, str(tmp_path / "x4.pth")]

    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=env).stdout

    assert told.startswith("compile is on, but PyTorch cannot compile compact with 2 convolutions, x4 here: ")
    assert "it needs a C++ compiler" in told


def test_networks_that_requests_name_are_compiled_at_start_too(weights_of, tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr("vitascope_upscaler.upscaler.compiled_parts", seen.append)
    paths = [tmp_path / f"{name}.pth" for name in "ab"]
    for seed, path in enumerate(paths):
        torch.save({"params": weights_of(Compact(8, 2, 4), seed)}, path)
    own, other = map(str, paths)

    Upscaler(UpscalerSettings(own, allowed_models=(other,), device=Device.CPU, compile=True)).load()

    assert len(seen) == 2
