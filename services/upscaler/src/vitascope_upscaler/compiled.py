"""A network's parts compiled by PyTorch: when it is loaded, which is at start, and never for the size of a chunk."""

from __future__ import annotations

import subprocess

import torch
from torch import Tensor

from vitascope_core.errors import InvalidSettings
from vitascope_upscaler.architecture import COLOURS
from vitascope_upscaler.network import Network, Part, Parts

MEMORY_SHARE = 0.7
"""Of a budget, what a compiled network may count on: layers that the others write in place it makes anew."""

_SAMPLE = 89, 97
"""Rows and columns of cells that a part is compiled for. They stand for all that are not smaller: neither equal nor
multiples of anything, and so many that PyTorch convolves them the way it convolves larger ones."""

_BATCHES = {"cpu": (1,), "cuda": (1, 2)}
"""Frames at once that a part is compiled for, by device. One is a case of its own, two stand for more."""

_OTHERWISE = "eager_on_recompile"
"""What becomes of tensors that no graph fits after all: compiling one would keep a chunk waiting."""

_FAILURES = (RuntimeError, OSError, ImportError, subprocess.SubprocessError)
"""What PyTorch raises where it cannot compile: its own errors, all of which are RuntimeErrors, and the compiler's."""


def compiled_parts(network: Network) -> Parts:
    """Return the network's parts compiled for its device.

    There is one graph for a single frame and on a GPU one for several, each for all sizes but small ones, which are
    not worth one: they run as they do without.

    Raises:
        InvalidSettings: PyTorch cannot compile here.
        torch.OutOfMemoryError: As it says.
    """
    height, width = (side * network.cell for side in _SAMPLE)
    frames = torch.rand(max(_BATCHES[network.device.type]), COLOURS, height, width, device=network.device)
    try:
        with torch.inference_mode():
            features = network.body(frames)
        # A body that only hands on what it gets is left as it is.
        body = network.body if features is frames else _compiled(network.body, frames)
        return Parts(body, _compiled(network.tail, features))
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        # The first line may only say who reports what the second one says.
        reason = " ".join(str(error).split("\n")[:2])
        raise InvalidSettings(
            f"compile is on, but PyTorch cannot compile {network.architecture.name} here: {reason}; "
            "it needs a C++ compiler, and on a GPU Triton"
        ) from error


class _Traced(torch.nn.Module):
    """A part as what can be exported."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part

    def forward(self, x: Tensor) -> Tensor:
        return self._part(x)


def _compiled(part: Part, sample: Tensor) -> Part:
    """Return the part compiled for tensors of at least the sample's rows times columns."""
    most, _, height, width = sample.shape
    # Exported first: so the weights are the graph's own, and networks do not share a cache, which has few places.
    dynamic = torch.export.Dim.DYNAMIC
    pair = torch.empty((2, *sample.shape[1:]), dtype=sample.dtype, device=sample.device)
    with torch.no_grad():
        program = torch.export.export(
            _Traced(part), (_laid_out(pair),), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},)
        )
    graph = torch.compile(program.module(), dynamic=True, fullgraph=True)
    with torch.inference_mode():
        for batch in range(1, most + 1):
            graph(_laid_out(sample[:batch]))

    def run(x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] < height * width:
            return part(x)
        with torch.compiler.set_stance(_OTHERWISE):
            made: Tensor = graph(_laid_out(x))
        return made

    return run


def _laid_out(x: Tensor) -> Tensor:
    """Return the same values with channels last and no gaps, as a graph expects them."""
    count, channels, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    # Where a side is 1 its step is whatever it was before, and a graph looks at it all the same.
    steps = channels * height * width, 1, channels * width, channels
    return x.as_strided((count, channels, height, width), steps, x.storage_offset())
