"""The hook changes nothing of a pipeline, is gone afterwards, and says when a run cannot be taken up."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import weakref
from dataclasses import replace

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

from vitascope_core.errors import Stopped
from vitascope_denoiser.packing import NotResumable
from vitascope_denoiser.snapshot import LoopState, RandomState, dumps, loads, take
from vitascope_denoiser.stepping import Steps

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

CPU = torch.device("cpu")


class Pipeline:
    """The least that makes a pipeline: a network, a scheduler and a loop."""

    _execution_device = CPU

    def __init__(self, scheduler, network=None):
        self.scheduler = scheduler
        self.transformer = network or torch.nn.Linear(4, 4)
        with torch.no_grad():
            for number, weights in enumerate(self.transformer.parameters()):
                weights.copy_(torch.linspace(-1, 1, weights.numel()).reshape(weights.shape) * (number + 1) / 4)

    @property
    def components(self):
        return {"scheduler": self.scheduler, "transformer": self.transformer}

    @torch.no_grad()
    def __call__(self, steps=5, scheduler=None, generator=None):
        scheduler = scheduler or self.scheduler
        scheduler.set_timesteps(steps)
        latents = torch.randn(1, 4, generator=generator)
        for timestep in scheduler.timesteps:
            scale = getattr(scheduler, "scale_model_input", lambda latents, _: latents)
            guess = self.transformer(scale(latents, timestep))
            more = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
            latents = scheduler.step(guess, timestep, latents, return_dict=False, **more)[0]
        return latents


def run(pipe, resume=None, call=None, seed=3):
    """Run a pipeline under the hook; return its latents, the snapshots and the hook."""
    generator, snapshots = torch.Generator().manual_seed(seed), {}

    def on_step(steps):
        snapshots[steps.done] = steps.snapshot({})

    with Steps(pipe, [generator], on_step, resume=resume) as steps:
        latents = (call or pipe)(generator=generator)
    return latents, snapshots, steps


def state_of(snapshot):
    return loads(dumps(snapshot), {}, CPU)


@pytest.mark.parametrize(
    "make",
    [DPMSolverMultistepScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler],
)
def test_goes_on_with_other_schedulers_too(make):
    whole, snapshots, steps = run(Pipeline(make()))
    plain = Pipeline(make())(generator=torch.Generator().manual_seed(3))
    assert torch.equal(whole, plain)
    assert steps.total == len(snapshots) == max(snapshots)

    for snapshot in snapshots.values():
        latents, later, _ = run(Pipeline(make()), state_of(snapshot))

        assert torch.equal(latents, whole)
        assert min(later) == snapshot.step


def test_a_scheduler_looks_as_before_and_is_itself_again():
    scheduler = FlowMatchEulerDiscreteScheduler()
    kind, signature = type(scheduler), inspect.signature(scheduler.step)
    pipe = Pipeline(scheduler)

    with Steps(pipe, [], lambda steps: None):
        assert type(scheduler).__name__ == kind.__name__
        assert isinstance(scheduler, kind)
        assert inspect.signature(scheduler.step) == signature
        assert inspect.signature(scheduler.set_timesteps) == inspect.signature(kind().set_timesteps)
        assert type(copy.deepcopy(scheduler)) is type(scheduler)

    assert type(scheduler) is kind
    assert "forward" not in vars(pipe.transformer)


def test_a_forward_of_the_networks_own_is_kept():
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())
    pipe.transformer.forward = own = lambda latents: latents * 0.5

    _, snapshots, _ = run(pipe)

    assert pipe.transformer.forward is own
    assert len(snapshots) == 5


def test_an_error_in_a_step_leaves_no_hook():
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())
    kind = type(pipe.scheduler)

    def stop(steps):
        raise Stopped("told so")

    with pytest.raises(Stopped), Steps(pipe, [], stop):
        pipe()

    assert type(pipe.scheduler) is kind
    assert "forward" not in vars(pipe.transformer)


def test_what_an_earlier_job_left_in_the_scheduler_does_not_matter():
    used = Pipeline(DPMSolverMultistepScheduler(use_karras_sigmas=True))
    run(used, seed=9)
    whole, snapshots, _ = run(used)
    fresh, _, _ = run(Pipeline(DPMSolverMultistepScheduler(use_karras_sigmas=True)), state_of(snapshots[2]))
    other = Pipeline(DPMSolverMultistepScheduler(use_karras_sigmas=True))
    run(other, seed=10)
    again, _, _ = run(other, state_of(snapshots[2]))

    assert torch.equal(fresh, whole)
    assert torch.equal(again, whole)


def twice(pipe):
    def call(generator):
        pipe(generator=generator)
        return pipe(generator=generator)

    return call


def beside(pipe):
    """Steps a copy that was made when the schedule was."""

    def call(generator):
        pipe.scheduler.set_timesteps(5)
        other = copy.deepcopy(pipe.scheduler)
        latents = torch.randn(1, 4, generator=generator)
        for timestep in pipe.scheduler.timesteps:
            guess = pipe.transformer(latents)
            latents = pipe.scheduler.step(guess, timestep, latents).prev_sample
            other.step(guess, timestep, latents)
        return latents

    return call


@pytest.mark.parametrize(
    ("call_of", "why"), [(twice, "denoises more than once"), (beside, "a copy of the scheduler steps beside it")]
)
def test_loops_that_cannot_be_replayed_make_no_checkpoints(call_of, why, caplog):
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())
    with caplog.at_level(logging.WARNING):
        _, snapshots, steps = run(pipe, call=call_of(pipe))

    assert why in steps.obstacle
    assert [record.reason for record in caplog.records] == [steps.obstacle]
    assert snapshots[5] is None

    # One that was made before it was known is not used either.
    early = next((snapshot for snapshot in snapshots.values() if snapshot is not None), None)
    if early is not None:
        pipe = Pipeline(FlowMatchEulerDiscreteScheduler())
        with pytest.raises(NotResumable):
            run(pipe, state_of(early), call_of(pipe))


def test_a_scheduler_that_is_only_asked_for_a_schedule_is_no_loop():
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())

    def call(generator):
        copy.deepcopy(pipe.scheduler).set_timesteps(3)
        return pipe(generator=generator)

    whole, snapshots, steps = run(pipe, call=call)

    # It is known to be none when the other has taken its first step.
    assert list(snapshots) == [2, 3, 4, 5]
    assert steps.total == 5
    assert whole.shape == (1, 4)


def test_a_pipeline_that_writes_into_the_latents_is_noticed():
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())

    def call(generator):
        pipe.scheduler.set_timesteps(3)
        latents = torch.randn(1, 4, generator=generator)
        for timestep in pipe.scheduler.timesteps:
            latents = pipe.scheduler.step(pipe.transformer(latents), timestep, latents, return_dict=False)[0]
            latents *= 0.5
        return latents

    with torch.no_grad():
        _, snapshots, _ = run(pipe, call=call)

    with pytest.raises(NotResumable, match="writes into the latents"):
        dumps(snapshots[1])


def keeping_an_object():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.noise_sampler = iter(())
    return scheduler


@pytest.mark.parametrize(("make", "name"), [(keeping_an_object, "noise_sampler"), (PNDMScheduler, "_timesteps")])
def test_a_scheduler_that_keeps_something_else_makes_no_checkpoints(make, name):
    _, snapshots, steps = run(Pipeline(make()))

    assert set(snapshots.values()) == {None}
    assert f"the scheduler's {name} is a" in steps.obstacle


def test_a_network_of_unknown_results_makes_no_checkpoints():
    class Answer(dict):
        pass

    class Network(torch.nn.Linear):
        def forward(self, latents):
            return Answer(sample=super().forward(latents))

    pipe = Pipeline(FlowMatchEulerDiscreteScheduler(), Network(4, 4))

    def call(generator):
        pipe.scheduler.set_timesteps(2)
        latents = torch.ones(1, 4)
        for timestep in pipe.scheduler.timesteps:
            latents = pipe.scheduler.step(pipe.transformer(latents)["sample"], timestep, latents).prev_sample
        return latents

    with torch.no_grad():
        _, snapshots, steps = run(pipe, call=call)

    assert set(snapshots.values()) == {None}
    assert "returns a Answer" in steps.obstacle


def test_steps_may_be_called_by_name():
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())

    def call(generator):
        pipe.scheduler.set_timesteps(3)
        latents = torch.randn(1, 4, generator=generator)
        for timestep in pipe.scheduler.timesteps:
            guess = pipe.transformer(latents)
            latents = pipe.scheduler.step(model_output=guess, timestep=timestep, sample=latents).prev_sample
        return latents

    with torch.no_grad():
        whole, snapshots, _ = run(pipe, call=call)
        again, _, _ = run(pipe, state_of(snapshots[2]), call)

    assert torch.equal(again, whole)


LOOP = {
    "another schedule": lambda loop: replace(loop, timesteps=loop.timesteps + 1),
    "another schedule's type": lambda loop: replace(loop, timesteps=loop.timesteps.double()),
    "other latents": lambda loop: replace(loop, output=(torch.zeros(2, 4),)),
    "no latents": lambda loop: replace(loop, output=3),
    "nothing": lambda loop: replace(loop, output=()),
    "a method": lambda loop: replace(loop, attributes=loop.attributes | {"step": 1}),
    "no name": lambda loop: replace(loop, attributes=loop.attributes | {"a b": 1}),
}


@pytest.mark.parametrize("change", LOOP.values(), ids=LOOP.keys())
def test_a_state_of_another_loop_is_refused(change):
    _, snapshots, _ = run(Pipeline(FlowMatchEulerDiscreteScheduler()))
    state = state_of(snapshots[2])

    with pytest.raises(NotResumable):
        run(Pipeline(FlowMatchEulerDiscreteScheduler()), replace(state, loops=(change(state.loops[0]),)))


def test_a_state_that_was_refused_halfway_leaves_nothing_in_the_scheduler():
    _, snapshots, _ = run(Pipeline(FlowMatchEulerDiscreteScheduler()))
    state = state_of(snapshots[2])
    [loop] = state.loops
    foreign = replace(loop, attributes=loop.attributes | {"sigmas": "text", "_shift": 9.0, "more": 1})
    pipe = Pipeline(FlowMatchEulerDiscreteScheduler())
    before = dict(vars(pipe.scheduler))

    with pytest.raises(NotResumable):
        run(pipe, replace(state, loops=(foreign,), random=replace(state.random, generators=())))

    assert vars(pipe.scheduler) == before


def test_nothing_of_a_run_outlives_it():
    held = []

    def on_step(steps):
        held.append(weakref.ref(steps.main.model_output))
        held.append(weakref.ref(steps.main.sample))

    gc.disable()
    try:
        with Steps(Pipeline(FlowMatchEulerDiscreteScheduler()), [], on_step) as steps:
            steps._pipe()
        assert [ref() for ref in held] == [None] * 10
    finally:
        gc.enable()


def none():
    return torch.zeros(0, dtype=torch.uint8)


STATE = {
    "more loops": lambda state: replace(state, loops=state.loops * 2),
    "other shapes": lambda state: replace(state, shapes={}),
    "impossible shapes": lambda state: replace(state, shapes=dict.fromkeys(state.shapes, "x")),
    "no generators": lambda state: replace(state, random=replace(state.random, generators=())),
    "broken generators": lambda state: replace(state, random=replace(state.random, generators=(none(),))),
    "broken random state": lambda state: replace(state, random=replace(state.random, cpu=none())),
    "a device's random state": lambda state: replace(state, random=RandomState(none(), none(), ())),
}


@pytest.mark.parametrize("change", STATE.values(), ids=STATE.keys())
def test_a_state_of_another_run_is_refused(change):
    _, snapshots, _ = run(Pipeline(FlowMatchEulerDiscreteScheduler()))

    with pytest.raises(NotResumable):
        run(Pipeline(FlowMatchEulerDiscreteScheduler()), change(state_of(snapshots[2])))


def test_a_pipeline_that_ends_before_the_checkpoints_step_is_still_replaying():
    _, snapshots, _ = run(Pipeline(FlowMatchEulerDiscreteScheduler()))
    state = replace(state_of(snapshots[2]), step=9)

    _, later, steps = run(Pipeline(FlowMatchEulerDiscreteScheduler()), state)

    assert steps.replaying
    assert later == {}


def engine_refusal(new_engine, new_spec, new_control, new_attempt, change):
    """The reason for which an engine refuses a state that was changed, and whether its result is right all the same."""
    engine, first, spec = new_engine("wan"), new_attempt(), new_spec(num_frames=5)
    [whole] = engine.denoise([spec], [new_control()], [first])
    fingerprint = first.snapshots[2].fingerprint
    changed = dumps(take(change(loads(first.saved[2], fingerprint, CPU)), fingerprint))
    attempt = new_attempt(changed)
    [latents] = engine.denoise([spec], [new_control()], [attempt])
    [why] = attempt.refusals
    return why, torch.equal(latents.z, whole.z)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: replace(state, step=9), "fewer steps"),
        (lambda state: replace(state, shapes={}), "other shapes"),
        # Fits the checks, but not the pipeline.
        (
            lambda state: replace(state, shapes={name: {"tuple": []} for name in state.shapes}),
            "did not get to its step",
        ),
    ],
)
def test_an_engine_begins_anew_where_a_state_does_not_fit(change, why, new_engine, new_spec, new_control, new_attempt):
    refusal, right = engine_refusal(new_engine, new_spec, new_control, new_attempt, change)

    assert why in refusal
    assert right


def test_the_state_of_a_loop_is_named_for_its_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipe = Pipeline(scheduler)
    _, snapshots, steps = run(pipe)

    assert steps.main.scheduler is scheduler
    assert isinstance(state_of(snapshots[1]).loops[0], LoopState)
