"""A device that networks run on, for one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vitascope_core.errors import DeviceOutOfMemory, InvalidSettings
from vitascope_weights.device import Device


class ExclusiveDevice:
    """Where networks run, and the right to use it.

    Args:
        device: What a setting says.

    Attributes:
        torch: The same for PyTorch.

    Raises:
        InvalidSettings: There is no GPU.
    """

    def __init__(self, device: Device) -> None:
        self.torch = torch_device(device)
        self._one_at_a_time = threading.Lock()

    @contextmanager
    def alone(self, doing: str) -> Iterator[None]:
        """Have the device, and what is loaded on it, alone.

        Args:
            doing: What an error says that it happened in, for example "loading weights".

        Raises:
            DeviceOutOfMemory: It ran out of memory meanwhile.
        """
        with self._one_at_a_time:
            try:
                yield
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                raise DeviceOutOfMemory(f"the device ran out of memory while {doing}") from error


def torch_device(device: Device) -> torch.device:
    """Return the device that a setting stands for.

    Raises:
        InvalidSettings: There is no GPU.
    """
    there = torch.cuda.is_available()
    if device is Device.CUDA and not there:
        raise InvalidSettings("device is cuda, but there is no GPU that PyTorch can use")
    return torch.device("cuda" if there and device is not Device.CPU else "cpu")
