"""What a denoising step leaves, as one safetensors object: enough to go on from it in another process.

Nothing is pickled: tensors are safetensors', the rest is JSON in its metadata, and what is read is checked before it is
used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vitascope_denoiser.packing import NotResumable, Packer, laid_out, strides_of, unpack

FORMAT = "1"
"""Version of the layout; objects of another are not read."""

_KEY = "vitascope"
_LENGTH_BYTES = 8
_MALFORMED = (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError, RuntimeError, SafetensorError)
"""What reading raises for bytes that `dumps` did not write."""


class Damaged(NotResumable):
    """The bytes are no whole checkpoint."""


@dataclass(frozen=True, slots=True, eq=False)
class LoopState:
    """What a step leaves in one scheduler.

    Attributes:
        output: What ``step`` returned.
        timesteps: The schedule, so that another one is noticed.
        attributes: The scheduler's attributes: all, for what was left of the job before it may matter as well.
    """

    output: Any
    timesteps: Tensor
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class RandomState:
    """Where the random generators stand: torch's own, the device's if it has one, the request's."""

    cpu: Tensor
    device: Tensor | None
    generators: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A run after a step.

    Attributes:
        step: Steps done, from 1.
        seconds: What they took, over all attempts.
        shapes: Shapes of what the networks return, by network and inputs (`vitascope_denoiser.blanks`).
        random: The random generators after the step.
        loops: One for each scheduler, in the order in which the pipeline set their timesteps.
    """

    step: int
    seconds: float
    shapes: Mapping[str, Any]
    random: RandomState
    loops: tuple[LoopState, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A state by reference, taken within the step and written later.

    Attributes:
        step: As in `State`.
        seconds: As in `State`.
        fingerprint: What has to be equal where it is read (`vitascope_denoiser.fingerprint`).
        tree: The state as JSON, with numbers in place of tensors.
        tensors: The tensors, each once. Nothing may write into them until they are copied.
        versions: How often each had been written to; shows if something did.
        written: Reached by the device once the tensors hold their values; None on a CPU.
    """

    step: int
    seconds: float
    fingerprint: Mapping[str, str]
    tree: Any
    tensors: tuple[Tensor, ...]
    versions: tuple[int, ...]
    written: torch.cuda.Event | None

    @property
    def ready(self) -> bool:
        """Whether the device has computed it."""
        return self.written is None or bool(self.written.query())  # type: ignore[no-untyped-call]


def take(state: State, fingerprint: Mapping[str, str]) -> Snapshot:
    """Return a snapshot of a state, without copying a tensor.

    Raises:
        NotResumable: It holds something that cannot be written.
    """
    packer = Packer()
    loops = [
        {
            "output": packer.pack(loop.output, "a step's output"),
            "timesteps": packer.pack(loop.timesteps, "timesteps"),
            "attributes": {
                name: packer.pack(value, f"the scheduler's {name}") for name, value in loop.attributes.items()
            },
        }
        for loop in state.loops
    ]
    random = {
        "cpu": packer.pack(state.random.cpu, "a random state"),
        "device": packer.pack(state.random.device, "a random state"),
        "generators": [packer.pack(own, "a random state") for own in state.random.generators],
    }
    tensors = tuple(packer.tensors)
    written = None
    if any(tensor.is_cuda for tensor in tensors):
        written = torch.cuda.Event()  # type: ignore[no-untyped-call]
        written.record()
    return Snapshot(
        step=state.step,
        seconds=state.seconds,
        fingerprint=fingerprint,
        tree={"shapes": state.shapes, "random": random, "loops": loops},
        tensors=tensors,
        versions=tuple(tensor._version for tensor in tensors),
        written=written,
    )


def dumps(snapshot: Snapshot) -> bytes:
    """Return a snapshot as a safetensors object. Tensors are copied on the calling thread's stream.

    Raises:
        NotResumable: Something wrote into a tensor since the snapshot was taken.
    """
    if snapshot.written is not None:
        snapshot.written.wait()
    copies = [tensor.detach().to("cpu", copy=True).contiguous() for tensor in snapshot.tensors]
    if snapshot.versions != tuple(tensor._version for tensor in snapshot.tensors):
        raise NotResumable("the pipeline or its scheduler writes into the latents of a step that is done")
    content = {
        "fingerprint": dict(snapshot.fingerprint),
        "step": snapshot.step,
        "seconds": snapshot.seconds,
        # Strides are kept: another memory layout takes other kernels, which round differently.
        "tensors": [{"strides": strides_of(tensor), "host": not tensor.is_cuda} for tensor in snapshot.tensors],
        "tree": snapshot.tree,
    }
    return save({str(place): copy for place, copy in enumerate(copies)}, {_KEY: json.dumps(content)})


def loads(data: bytes, fingerprint: Mapping[str, str], device: torch.device) -> State:
    """Return the state that a checkpoint holds, if it was made under the same conditions.

    Args:
        data: Bytes from `dumps`; from elsewhere they do no harm.
        fingerprint: What holds here.
        device: Where tensors go that were not on the CPU.

    Raises:
        Damaged: The bytes are no whole checkpoint.
        NotResumable: The fingerprint differs; the text names in what.
    """
    try:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        content = json.loads(header["__metadata__"][_KEY])
        found = {str(name): str(value) for name, value in content["fingerprint"].items()}
    except (*_MALFORMED, AttributeError) as error:
        raise Damaged(f"a checkpoint of {len(data)} bytes has no readable header: {error!r}") from error
    _compare(found, fingerprint)
    try:
        return _state(content, load(data), device)
    except (*_MALFORMED, AttributeError) as error:
        raise Damaged(f"a checkpoint of {len(data)} bytes is damaged: {error!r}") from error


def _compare(found: Mapping[str, str], here: Mapping[str, str]) -> None:
    # The layout first: under another one the other names may mean something else.
    for name in sorted({*found, *here}, key=lambda name: (name != "format", name)):
        if found.get(name) != here.get(name):
            raise NotResumable(
                f"the checkpoint is of another {name}: {found.get(name, 'none')!r}, here {here.get(name, 'none')!r}"
            )


def _state(content: Mapping[str, Any], stored: Mapping[str, Tensor], device: torch.device) -> State:
    step, seconds = content["step"], content["seconds"]
    if type(step) is not int or step < 1:
        raise ValueError(f"step {step!r}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds {seconds!r}")
    likes = content["tensors"]
    if len(likes) != len(stored):
        raise ValueError(f"{len(stored)} tensors, not {len(likes)}")
    tensors = [laid_out(stored[str(place)], like, device) for place, like in enumerate(likes)]
    tree = content["tree"]
    random = tree["random"]
    own = None if random["device"] is None else _tensor(random["device"], tensors)
    loops = tuple(
        LoopState(
            output=unpack(loop["output"], tensors),
            timesteps=_tensor(loop["timesteps"], tensors),
            attributes={str(name): unpack(value, tensors) for name, value in loop["attributes"].items()},
        )
        for loop in tree["loops"]
    )
    if not loops or not isinstance(tree["shapes"], dict):
        raise ValueError("no scheduler's state")
    return State(
        step=step,
        seconds=float(seconds),
        shapes=tree["shapes"],
        random=RandomState(
            _tensor(random["cpu"], tensors), own, tuple(_tensor(value, tensors) for value in random["generators"])
        ),
        loops=loops,
    )


def _tensor(packed: Any, tensors: Sequence[Tensor]) -> Tensor:
    value = unpack(packed, tensors)
    if not isinstance(value, Tensor):
        raise TypeError(f"{type(value).__name__} in place of a tensor")
    return value
