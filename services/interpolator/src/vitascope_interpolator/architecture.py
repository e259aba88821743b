"""The versions of RIFE's network that are supported, as the names and shapes of their tensors."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS, FEATURES = 3, 4
FLOW, CARRIED = 4, 9
"""Channels of a stage's output: two flows (x, y), in pixels of the stage; a mask and eight features for the next."""

RESIDUALS = 8
"""Residual layers of a stage."""

_HEAD = 16


@dataclass(frozen=True, slots=True)
class Architecture:
    """A version of the network.

    Attributes:
        name: As its author calls it.
        channels: Width of each stage, from the coarsest to the finest.
    """

    name: str
    channels: tuple[int, ...]

    def factors(self, scale: float) -> tuple[float, ...]:
        """Return by how much each stage shrinks the frame; below 1 it enlarges."""
        finest = len(self.channels) - 1
        return tuple(2 ** (finest - stage) / scale for stage in range(len(self.channels)))

    def multiple(self, scale: float) -> int:
        """Return what height and width must be a multiple of: the coarsest stage halves its input twice more."""
        least = 4 << len(self.channels) - 1
        return max(least, round(least / scale))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor of a checkpoint."""
        shapes: dict[str, tuple[int, ...]] = {}

        def layer(name: str, outputs: int, *weight: int) -> None:
            shapes[f"{name}.weight"] = weight
            shapes[f"{name}.bias"] = (outputs,)

        layer("encode.cnn0", _HEAD, _HEAD, COLOURS, 3, 3)
        layer("encode.cnn1", _HEAD, _HEAD, _HEAD, 3, 3)
        layer("encode.cnn2", _HEAD, _HEAD, _HEAD, 3, 3)
        layer("encode.cnn3", FEATURES, _HEAD, FEATURES, 4, 4)
        for stage, width in enumerate(self.channels):
            name, inputs = f"block{stage}", 2 * (COLOURS + FEATURES) + 1 + (CARRIED + FLOW if stage else 0)
            out = 4 * (FLOW + CARRIED)  # a pixel shuffle by 2 follows
            layer(f"{name}.conv0.0.0", width // 2, width // 2, inputs, 3, 3)
            layer(f"{name}.conv0.1.0", width, width, width // 2, 3, 3)
            for place in range(RESIDUALS):
                shapes[f"{name}.convblock.{place}.beta"] = (1, width, 1, 1)
                layer(f"{name}.convblock.{place}.conv", width, width, width, 3, 3)
            layer(f"{name}.lastconv.0", out, width, out, 4, 4)
        return shapes


RIFE_4_22_LITE = Architecture("4.22.lite", (192, 128, 64, 32))
RIFE_4_25 = Architecture("4.25 or 4.26", (192, 128, 96, 64, 32))
SUPPORTED = (RIFE_4_22_LITE, RIFE_4_25)
