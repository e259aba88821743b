"""Between worker and child: checkpoints leave when a worker drains or hands back, and a new child goes on from them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from vitascope_core.errors import EngineCrashed, Stopped
from vitascope_denoiser.child import ChildEngine
from vitascope_denoiser.settings import EngineSettings
from vitascope_frames.checkpoints import Checkpoint, Kept

WAIT_S = 60.0


@dataclass
class Attempts:
    """The worker's side of checkpoints, kept in lists."""

    checkpoint: Checkpoint | None = None
    kept: frozenset = frozenset()
    saved: list = field(default_factory=list)
    used_: list = field(default_factory=list)
    refusals: list = field(default_factory=list)
    previews: dict = field(default_factory=dict)
    asked: int = 0
    came: threading.Event = field(default_factory=threading.Event)

    def newest(self):
        self.asked += 1
        return self.checkpoint

    def used(self, checkpoint):
        self.used_.append(checkpoint)

    def refused(self, why):
        self.refusals.append(why)

    def save(self, checkpoint):
        self.saved.append(checkpoint)
        self.came.set()

    def preview(self, index, frames):
        self.previews[index] = frames


@pytest.fixture(scope="module")
def child(folder_of):
    # One thread in torch: the cores are the other processes' as well. The interval never passes here.
    os.environ["OMP_NUM_THREADS"] = "1"
    engine = ChildEngine(EngineSettings(str(folder_of("wan")), device="cpu", checkpoint_interval=3600.0))
    engine.start()
    yield engine
    engine.close()
    del os.environ["OMP_NUM_THREADS"]


def pixels(made):
    return [(chunk.output, chunk.index, chunk.frames.tobytes()) for chunk in made if not isinstance(chunk, Kept)]


def test_a_finished_job_leaves_its_last_step(child, new_job, control):
    checkpoints = Attempts()

    list(child.chunks(new_job((5,)), control, checkpoints))

    assert [checkpoint.step for checkpoint in checkpoints.saved] == [3]
    assert checkpoints.saved[0].seconds > 0
    assert checkpoints.used_ == checkpoints.refusals == []


def test_a_killed_child_costs_only_the_steps_behind_the_checkpoint(child, new_job, new_control):
    job = new_job((4, 4, 1), seeds=(3, 4), num_inference_steps=120)
    whole = pixels(child.chunks(job, new_control()))
    checkpoints, draining = Attempts(), new_control(drain_at=7)

    def killed():
        for _ in child.chunks(job, draining, checkpoints):
            pytest.fail("the child lived too long")

    def kill():
        assert checkpoints.came.wait(WAIT_S)
        os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(EngineCrashed):
        killed()
    killer.join()
    [saved] = checkpoints.saved
    assert saved.step >= 7

    control, later = new_control(), Attempts(saved)
    again = pixels(child.chunks(job, control, later))

    assert again == whole
    assert later.used_ == [saved]
    assert control.steps[0] == (saved.step, 120)
    assert [checkpoint.step for checkpoint in later.saved] == [120]
    assert later.saved[0].seconds > saved.seconds


def test_a_job_that_is_handed_back_leaves_the_step_it_reached(child, new_job, new_control):
    checkpoints = Attempts()
    begun = time.monotonic()

    with pytest.raises(Stopped):
        list(child.chunks(new_job((5,), num_inference_steps=900), new_control(stop_at=3, hands_back=True), checkpoints))

    [saved] = checkpoints.saved
    assert 3 <= saved.step < 900
    assert time.monotonic() - begun < WAIT_S
    assert child._child._jobs == {}


def test_a_job_that_is_not_wanted_leaves_nothing(child, new_job, new_control):
    checkpoints = Attempts()

    with pytest.raises(Stopped):
        list(child.chunks(new_job((5,), num_inference_steps=900), new_control(stop_at=3), checkpoints))
    list(child.chunks(new_job((1,), num_inference_steps=1), new_control()))

    assert checkpoints.saved == []


def test_a_job_that_waits_for_its_turn_is_handed_back_without_a_checkpoint(child, new_job, new_control):
    checkpoints, waiting, begun = Attempts(), new_control(hands_back=True), new_control()
    running = reader_of(child.chunks(new_job((5,), num_inference_steps=900), begun))
    assert begun.stepped.wait(WAIT_S)
    behind = reader_of(child.chunks(new_job((5,)), waiting, checkpoints))
    deadline = time.monotonic() + WAIT_S
    while len(child._child._jobs) < 2 and time.monotonic() < deadline:
        begun.stepped.clear()
        assert begun.stepped.wait(WAIT_S)

    waiting.stop()
    behind.join(WAIT_S)

    assert not behind.is_alive()
    assert checkpoints.saved == []
    begun.stop()
    running.join(WAIT_S)


def reader_of(made):
    """A thread that takes a job's chunks until it is stopped."""

    def read():
        with contextlib.suppress(Stopped):
            list(made)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_closing_a_job_that_is_handed_back_while_it_is_decoded_keeps_its_last_step(child, new_job, new_control):
    checkpoints, control = Attempts(), new_control(hands_back=True)
    made = child.chunks(new_job((1,) * 9), control, checkpoints)
    next(made)

    control.stop()
    made.close()

    assert [checkpoint.step for checkpoint in checkpoints.saved] == [3]


def test_outputs_that_are_there_are_not_decoded_again(child, new_job, new_control):
    job, first = new_job((4, 1), seeds=(1, 2, 3)), Attempts()
    whole = list(child.chunks(job, new_control(), first))

    control = new_control()
    made = list(child.chunks(job, control, Attempts(first.saved[-1], kept=frozenset({0, 2}))))

    assert [item.output for item in made if isinstance(item, Kept)] == [0, 2]
    assert pixels(made) == [entry for entry in pixels(whole) if entry[0] == 1]
    assert control.steps == [(3, 3)]


def test_outputs_are_decoded_again_where_steps_were_left(child, new_job, new_control):
    job, checkpoints = new_job((4, 1), seeds=(1, 2), num_inference_steps=30), Attempts()
    with pytest.raises(Stopped):
        list(child.chunks(job, new_control(stop_at=3, hands_back=True), checkpoints))

    made = list(child.chunks(job, new_control(), Attempts(checkpoints.saved[-1], kept=frozenset({0}))))

    assert {chunk.output for chunk in made} == {0, 1}
    assert not any(isinstance(chunk, Kept) for chunk in made)


def test_a_checkpoint_of_another_job_is_refused_and_everything_is_made(child, new_job, new_control):
    first = Attempts()
    list(child.chunks(new_job((4, 1)), new_control(), first))
    other = new_job((4, 1), seeds=(99,))
    whole = pixels(child.chunks(other, new_control()))

    again = Attempts(first.saved[-1], kept=frozenset({0}))
    made = pixels(child.chunks(other, new_control(), again))

    assert made == whole
    assert again.used_ == []
    assert "another spec" in again.refusals[0]


@pytest.mark.parametrize("data", [b"", b"\0" * 100, os.urandom(1000)], ids=["empty", "zeros", "noise"])
def test_a_checkpoint_that_is_none_is_refused(data, child, new_job, new_control):
    checkpoints = Attempts(Checkpoint(2, 1.0, data))

    assert len(list(child.chunks(new_job((5,)), new_control(), checkpoints))) == 1
    assert checkpoints.used_ == []
    assert "no readable header" in checkpoints.refusals[0]


def test_previews_come_on_the_way(child, new_job, new_control):
    job, checkpoints = new_job((4, 1), seeds=(1, 2), num_inference_steps=5), Attempts()
    whole = pixels(child.chunks(job, new_control()))

    shown = replace(job, denoise=replace(job.denoise, previews=2))
    made = pixels(child.chunks(shown, new_control(), checkpoints))

    assert made == whole
    assert {index: (frames.shape, frames.dtype) for index, frames in checkpoints.previews.items()} == {
        index: ((1, 48, 64, 3), np.dtype(np.uint8)) for index in (0, 1)
    }


def test_without_an_interval_nothing_is_asked_for_or_kept(folder_of, new_job, new_control):
    engine = ChildEngine(EngineSettings(str(folder_of("wan")), device="cpu", checkpoint_interval=0.0))
    checkpoints = Attempts(Checkpoint(2, 1.0, b"data"))
    try:
        assert not engine.start().resumable
        list(engine.chunks(new_job((5,)), new_control(), checkpoints))
        with pytest.raises(Stopped):
            list(engine.chunks(new_job((5,)), new_control(stop_at=2, hands_back=True), checkpoints))
    finally:
        engine.close()

    assert (checkpoints.asked, checkpoints.saved, checkpoints.refusals) == (0, [], [])
