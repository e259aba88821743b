"""The names that tensors of RRDB networks had before Real-ESRGAN, in today's words."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BSRGAN = {
    "RRDB_trunk.": "body.",
    "trunk_conv.": "conv_body.",
    "HRconv.": "conv_hr.",
}
_DENSE_OF_BSRGAN = re.compile(r"body\.(\d+)\.RDB(\d)\.(.+)")
_UP_OF_BSRGAN = re.compile(r"upconv(\d+)\.(.+)")

_DENSE_OF_2018 = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)")
_BODY_OF_2018 = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")
_LAYER_OF_2018 = re.compile(r"model\.(\d+)\.(weight|bias)")


def todays_names(names: Iterable[str]) -> dict[str, str]:
    """Return today's name for every name; one that is of no old style is kept."""
    seen = list(names)
    if any(name.startswith("RRDB_trunk.") for name in seen):
        return {name: _of_bsrgan(name) for name in seen}
    if any(_DENSE_OF_2018.fullmatch(name) for name in seen):
        places = sorted({int(match[1]) for name in seen if (match := _LAYER_OF_2018.fullmatch(name))})
        blocks = 1 + max(int(match[1]) for name in seen if (match := _DENSE_OF_2018.fullmatch(name)))
        return {name: _of_2018(name, _layers_of_2018(places), blocks) for name in seen}
    return {name: name for name in seen}


def _of_bsrgan(name: str) -> str:
    for old, new in _BSRGAN.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
    if match := _DENSE_OF_BSRGAN.fullmatch(name):
        return f"body.{match[1]}.rdb{match[2]}.{match[3]}"
    if match := _UP_OF_BSRGAN.fullmatch(name):
        return f"conv_up{match[1]}.{match[2]}"
    return name


def _layers_of_2018(places: list[int]) -> dict[int, str]:
    """Return which layer stands at which place of the sequence: enlarging, convolution and activation take three."""
    if len(places) < 3:
        return {}
    doublings = len(places) - 3
    layers = {0: "conv_first", 3 * doublings + 2: "conv_hr", 3 * doublings + 4: "conv_last"}
    return layers | {3 * doubling: f"conv_up{doubling}" for doubling in range(1, doublings + 1)}


def _of_2018(name: str, layers: dict[int, str], blocks: int) -> str:
    if match := _DENSE_OF_2018.fullmatch(name):
        return f"body.{match[1]}.rdb{match[2]}.conv{match[3]}.{match[4]}"
    if (match := _BODY_OF_2018.fullmatch(name)) and int(match[1]) == blocks:
        return f"conv_body.{match[2]}"
    if (match := _LAYER_OF_2018.fullmatch(name)) and int(match[1]) in layers:
        return f"{layers[int(match[1])]}.{match[2]}"
    return name
