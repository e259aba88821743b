"""A state crosses as bytes unchanged; bytes that are no whole state are refused by name, whatever they hold."""

from __future__ import annotations

import contextlib
import json
import random
from dataclasses import dataclass

import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from diffusers.utils.outputs import BaseOutput

from vitascope_denoiser.blanks import blank, inputs_of, shape_of
from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.snapshot import Damaged, LoopState, RandomState, State, dumps, loads, take

CPU = torch.device("cpu")
PRINT = {"format": "1", "torch": "2", "spec": "abc"}


def state(output=None, timesteps=None, **attributes):
    latents = torch.arange(12.0).reshape(1, 3, 4)
    loop = LoopState(
        output=(latents,) if output is None else output,
        timesteps=torch.tensor([900.0, 400.0]) if timesteps is None else timesteps,
        attributes={"_step_index": 2, "last_sample": latents, "history": [None, latents]} | attributes,
    )
    shapes = {"transformer [(1, 3)]": {"tuple": [{"sizes": [1, 3, 4], "dtype": "float32"}]}}
    own = (torch.Generator().get_state(), torch.Generator().manual_seed(5).get_state())
    return State(2, 1.5, shapes, RandomState(torch.get_rng_state(), None, own), (loop,))


def crossed(original):
    return loads(dumps(take(original, PRINT)), PRINT, CPU)


def test_a_state_crosses_unchanged():
    original = state(shift=3.0, name="flow", steps=(1, 2), flags=[True, None], table={"a": 1}, huge=float("inf"))

    again = crossed(original)

    assert (again.step, again.seconds, again.shapes) == (2, 1.5, original.shapes)
    assert torch.equal(again.loops[0].timesteps, original.loops[0].timesteps)
    assert torch.equal(again.loops[0].output[0], original.loops[0].output[0])
    attributes = again.loops[0].attributes
    assert {name: attributes[name] for name in ("_step_index", "shift", "name", "steps", "flags", "table", "huge")} == {
        "_step_index": 2,
        "shift": 3.0,
        "name": "flow",
        "steps": (1, 2),
        "flags": [True, None],
        "table": {"a": 1},
        "huge": float("inf"),
    }
    assert type(attributes["flags"][0]) is bool
    assert torch.equal(again.random.cpu, original.random.cpu)
    assert [torch.equal(*pair) for pair in zip(again.random.generators, original.random.generators, strict=True)] == [
        True,
        True,
    ]


def test_a_tensor_that_occurs_twice_is_stored_once_and_stays_one():
    large = torch.zeros(1, 100_000)
    data = dumps(take(state(output=(large,), last_sample=large, other=[large]), PRINT))

    again = loads(data, PRINT, CPU).loops[0]

    assert len(data) < 1.2 * large.nbytes
    assert again.output[0] is again.attributes["last_sample"] is again.attributes["other"][0]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2),
        torch.arange(48.0).reshape(2, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        torch.arange(24.0).reshape(2, 3, 4)[:, :, 1:3],
        torch.arange(4.0).reshape(1, 1, 2, 2).transpose(0, 1),
        torch.arange(3).to(torch.bfloat16),
        torch.tensor(5),
        torch.zeros(0, 3),
    ],
    ids=["turned", "channels last", "cut", "single rows", "bf16", "scalar", "empty"],
)
def test_layout_and_dtype_are_kept(tensor):
    again = crossed(state(kept=tensor)).loops[0].attributes["kept"]

    assert torch.equal(again, tensor)
    assert (again.dtype, again.shape, again.stride()) == (tensor.dtype, tensor.shape, tensor.stride())


def test_elements_that_share_a_place_are_stored_one_by_one():
    again = crossed(state(kept=torch.arange(3.0).expand(4, 3))).loops[0].attributes["kept"]

    assert again.is_contiguous()
    assert torch.equal(again, torch.arange(3.0).expand(4, 3))


def test_outputs_keep_their_class():
    latents = torch.zeros(1, 2)

    again = crossed(state(output=FlowMatchEulerDiscreteSchedulerOutput(prev_sample=latents))).loops[0].output

    assert type(again) is FlowMatchEulerDiscreteSchedulerOutput
    assert torch.equal(again.prev_sample, latents)


@dataclass
class Foreign(BaseOutput):
    """An output as a program beside diffusers might have one."""

    latents: torch.Tensor


def test_only_classes_of_diffusers_are_written_or_read():
    with pytest.raises(NotResumable, match="a step's output is a Foreign"):
        take(state(output=Foreign(torch.zeros(1))), PRINT)
    named = {"output": f"{Foreign.__module__}.{Foreign.__qualname__}", "items": {"latents": {"tensor": 0}}}

    with pytest.raises(Damaged, match="no output of diffusers"):
        loads(rewritten(lambda content: loop_of(content).update(output=named)), PRINT, CPU)


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, torch.Generator(), 1j, torch.zeros(2, dtype=torch.complex64), b"bytes", {torch.device}]
)
def test_what_cannot_be_written_is_named(value):
    with pytest.raises(NotResumable, match="the scheduler's noise"):
        take(state(noise=value), PRINT)


def test_writing_into_a_state_that_was_taken_is_noticed():
    latents = torch.zeros(1, 2)
    snapshot = take(state(output=(latents,)), PRINT)

    latents += 1

    with pytest.raises(NotResumable, match="writes into the latents"):
        dumps(snapshot)


def test_a_list_that_changes_later_is_taken_as_it_was():
    history = [None, torch.zeros(2)]
    snapshot = take(state(history=history), PRINT)

    history[0] = torch.ones(2)

    assert loads(dumps(snapshot), PRINT, CPU).loops[0].attributes["history"][0] is None


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (PRINT | {"torch": "3"}, "another torch: '2', here '3'"),
        (PRINT | {"format": "2", "torch": "3"}, "another format"),
        (PRINT | {"new": "x"}, "another new: 'none', here 'x'"),
        ({"format": "1", "torch": "2"}, "another spec"),
    ],
)
def test_another_fingerprint_is_refused_and_named(here, why):
    with pytest.raises(NotResumable, match=why):
        loads(dumps(take(state(), PRINT)), here, CPU)


def rewritten(change):
    """A checkpoint whose JSON was changed by ``change(content)``, its tensors untouched."""
    data = dumps(take(state(), PRINT))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    content = json.loads(header["__metadata__"]["vitascope"])
    changed = change(content)
    header["__metadata__"]["vitascope"] = json.dumps(content if changed is None else changed)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def loop_of(content):
    return content["tree"]["loops"][0]


HOSTILE = {
    "no step": lambda c: c.pop("step") and None,
    "step 0": lambda c: c.update(step=0),
    "step as text": lambda c: c.update(step="2"),
    "step as truth": lambda c: c.update(step=True),
    "seconds below 0": lambda c: c.update(seconds=-1),
    "seconds no number": lambda c: c.update(seconds=float("nan")),
    "no object": lambda c: [1],
    "no tree": lambda c: c.update(tree=None),
    "no loops": lambda c: c["tree"].update(loops=[]),
    "loops no list": lambda c: c["tree"].update(loops=3),
    "shapes no object": lambda c: c["tree"].update(shapes=[]),
    "tensor beyond the end": lambda c: loop_of(c).update(output={"tuple": [{"tensor": 99}]}),
    "tensor before the start": lambda c: loop_of(c).update(output={"tuple": [{"tensor": -1}]}),
    "timesteps no tensor": lambda c: loop_of(c).update(timesteps=3),
    "foreign class": lambda c: loop_of(c).update(output={"output": "builtins.dict", "items": {}}),
    "class of another library": lambda c: loop_of(c).update(
        output={"output": "subprocess.Popen", "items": {"args": "ls"}}
    ),
    "class without its fields": lambda c: loop_of(c).update(
        output={
            "output": "diffusers.schedulers.scheduling_flow_match_euler_discrete.FlowMatchEulerDiscreteSchedulerOutput",
            "items": {"other": 1},
        }
    ),
    "unknown kind": lambda c: loop_of(c).update(output={"code": "1"}),
    "two kinds": lambda c: loop_of(c).update(output={"list": [], "tuple": []}),
    "bare list": lambda c: loop_of(c).update(output=[1]),
    "too few tensors told": lambda c: c["tensors"].pop() and None,
    "strides too large": lambda c: c["tensors"][0].update(strides=[10**12, 10**6, 1]),
    "strides below 0": lambda c: c["tensors"][0].update(strides=[-1, 4, 1]),
    "strides that overlap": lambda c: c["tensors"][0].update(strides=[0, 0, 0]),
    "strides as text": lambda c: c["tensors"][0].update(strides="abc"),
    "too many strides": lambda c: c["tensors"][0].update(strides=[1, 1, 1, 1, 1]),
    "host no truth": lambda c: c["tensors"][0].update(host="yes"),
    "random state missing": lambda c: c["tree"]["random"].pop("cpu") and None,
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_content_is_refused(change):
    with pytest.raises(Damaged):
        loads(rewritten(change), PRINT, CPU)


def test_deep_nesting_is_refused():
    data = rewritten(lambda c: None)
    deep = data.replace(b'{\\"tensor\\": 0}', b'{\\"list\\": [' * 30_000 + b"]}" * 30_000, 1)
    length = int.from_bytes(data[:8], "little") + len(deep) - len(data)

    with pytest.raises(Damaged):
        loads(length.to_bytes(8, "little") + deep[8:], PRINT, CPU)


def test_every_cut_and_many_flips_are_refused_or_harmless():
    data = dumps(take(state(), PRINT))
    flips = random.Random(3)
    cuts = [data[:size] for size in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1)] + [data + b"x"]
    for damaged in cuts:
        with pytest.raises(Damaged):
            loads(damaged, PRINT, CPU)
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(300):
        place = flips.randrange(header)
        flipped = bytearray(data)
        flipped[place] ^= 1 << flips.randrange(8)
        with contextlib.suppress(NotResumable):
            loads(bytes(flipped), PRINT, CPU)


def test_blanks_have_the_form_of_what_was_returned():
    returned = ([torch.ones(2, 3, dtype=torch.float16), None], (torch.ones(1),))

    again = blank(json.loads(json.dumps(shape_of(returned))), CPU)

    assert torch.equal(again[0][0], torch.zeros(2, 3, dtype=torch.float16))
    assert again[0][1] is None
    assert type(again) is tuple
    assert type(again[0]) is list


def test_blanks_of_outputs_keep_their_class():
    again = blank(shape_of(FlowMatchEulerDiscreteSchedulerOutput(prev_sample=torch.ones(2))), CPU)

    assert type(again) is FlowMatchEulerDiscreteSchedulerOutput
    assert again.prev_sample.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "shape",
    [
        {"sizes": [10**7, 10**7], "dtype": "float32"},
        {"sizes": [-1], "dtype": "float32"},
        {"sizes": ["1"], "dtype": "float32"},
        {"sizes": [1], "dtype": "load"},
        {"output": "os.system", "items": {}},
        {"set": []},
        [1],
        "text",
    ],
)
def test_impossible_blanks_are_refused(shape):
    with pytest.raises(NotResumable, match="cannot be"):
        blank(shape, CPU)


def test_a_network_that_returns_something_else_makes_no_checkpoints():
    with pytest.raises(NotResumable, match="returns a dict"):
        shape_of({"sample": torch.ones(1)})


def test_inputs_are_told_apart_by_shape():
    one = inputs_of([torch.ones(1, 2)], {"mask": None, "parts": [torch.ones(3)], "return_dict": False})

    assert one == inputs_of([torch.zeros(1, 2)], {"mask": None, "parts": [torch.zeros(3)], "return_dict": False})
    assert one != inputs_of([torch.ones(1, 2)], {"mask": None, "parts": [torch.ones(4)], "return_dict": False})
    assert one != inputs_of([torch.ones(1, 2)], {"mask": None, "parts": [torch.ones(3)], "return_dict": True})
