"""The networks of Real-ESRGAN, as the names and shapes of their tensors. No torch."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = 3

DENSE = 5
"""Convolutions of a dense block; every one but the last sees its output again."""

DENSE_BLOCKS = 3
"""Dense blocks of a residual-in-residual block."""


@dataclass(frozen=True, slots=True)
class Rrdb:
    """RRDBNet: a trunk of residual-in-residual dense blocks at the small size, then a tail that enlarges.

    Attributes:
        features: Channels of the trunk.
        blocks: Residual-in-residual blocks.
        growth: Channels that a convolution of a dense block adds.
        unshuffle: Side of the squares of pixels that are stacked into channels before the trunk: 1, 2 or 4.
        doublings: How often the tail doubles the size.
    """

    features: int
    blocks: int
    growth: int
    unshuffle: int
    doublings: int

    @property
    def scale(self) -> int:
        """By how much the network enlarges."""
        return (1 << self.doublings) // self.unshuffle

    @property
    def name(self) -> str:
        """What people call it."""
        return f"RRDB with {self.blocks} blocks, x{self.scale}"

    @property
    def dense_channels(self) -> int:
        """Channels that the last convolution of a dense block sees."""
        return self.features + (DENSE - 1) * self.growth

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor of a checkpoint."""
        shapes: dict[str, tuple[int, ...]] = {}

        def layer(name: str, outputs: int, inputs: int) -> None:
            shapes[f"{name}.weight"] = (outputs, inputs, 3, 3)
            shapes[f"{name}.bias"] = (outputs,)

        wide = self.features
        layer("conv_first", wide, COLOURS * self.unshuffle**2)
        for block in range(self.blocks):
            for dense in range(1, DENSE_BLOCKS + 1):
                for place in range(DENSE):
                    last = place == DENSE - 1
                    name = f"body.{block}.rdb{dense}.conv{place + 1}"
                    layer(name, wide if last else self.growth, wide + place * self.growth)
        layer("conv_body", wide, wide)
        for doubling in range(1, self.doublings + 1):
            layer(f"conv_up{doubling}", wide, wide)
        layer("conv_hr", wide, wide)
        layer("conv_last", COLOURS, wide)
        return shapes


@dataclass(frozen=True, slots=True)
class Compact:
    """SRVGGNetCompact: plain convolutions at the small size, then one pixel shuffle, on top of the enlarged input.

    Attributes:
        features: Channels between the convolutions.
        convolutions: Those between the first and the last.
        scale: By how much the network enlarges.
    """

    features: int
    convolutions: int
    scale: int

    @property
    def name(self) -> str:
        """What people call it."""
        return f"compact with {self.convolutions} convolutions, x{self.scale}"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every tensor of a checkpoint."""
        shapes: dict[str, tuple[int, ...]] = {}
        last = self.convolutions + 1
        for place in range(last + 1):
            inputs = COLOURS if place == 0 else self.features
            outputs = COLOURS * self.scale**2 if place == last else self.features
            shapes[f"body.{2 * place}.weight"] = (outputs, inputs, 3, 3)
            shapes[f"body.{2 * place}.bias"] = (outputs,)
            if place < last:
                shapes[f"body.{2 * place + 1}.weight"] = (self.features,)
        return shapes


Architecture = Rrdb | Compact
