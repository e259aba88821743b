"""When a checkpoint is made: by time, behind the last step, when asked for; never twice, never after the end."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
import torch

from vitascope_core.errors import Stopped
from vitascope_denoiser.channel import ChannelClosed, Preview, Refused, Resumed, Run, Saved
from vitascope_denoiser.host import HostedJob
from vitascope_denoiser.keeper import Keeper, Writer
from vitascope_denoiser.snapshot import LoopState, RandomState, State, loads, take


@dataclass
class Sent:
    """A channel's end that keeps what is sent."""

    messages: list = field(default_factory=list)

    def send(self, message, data=b""):
        self.messages.append((message, data))

    @property
    def steps(self):
        return [message.step for message, _ in self.messages if isinstance(message, Saved)]


class Held(Writer):
    """A writer that works when told."""

    def __init__(self):
        self.held = []

    def put(self, work):
        self.held.append(work)

    def work(self):
        held, self.held = self.held, []
        for work in held:
            work()


@pytest.fixture
def sent():
    return Sent()


@pytest.fixture
def writer():
    return Held()


@pytest.fixture
def keeper(sent, writer):
    return Keeper(7, None, 10.0, sent, writer)


def after(step, seconds, latents=None):
    latents = torch.full((2,), float(step)) if latents is None else latents
    loop = LoopState((latents,), torch.ones(1), {})
    return take(State(step, seconds, {}, RandomState(torch.get_rng_state(), None, ()), (loop,)), {})


def test_a_checkpoint_is_made_when_the_interval_has_passed(keeper, sent, writer):
    for step in range(1, 10):
        keeper.reached(after(step, step * 4.0))
        writer.work()

    assert sent.steps == [3, 6, 9]


def test_the_bytes_are_of_the_step(keeper, sent, writer):
    keeper.reached(after(1, 11.0))
    writer.work()

    [(message, data)] = sent.messages
    assert message == Saved(7, 1, 11.0)
    assert loads(data, {}, torch.device("cpu")).loops[0].output[0].tolist() == [1.0, 1.0]


def test_while_one_is_written_the_steps_ask_for_no_other(keeper, sent, writer):
    for step in range(1, 6):
        keeper.reached(after(step, step * 20.0))

    assert len(writer.held) == 1
    writer.work()
    assert sent.steps == [5]  # the newest, not the one that was due
    keeper.reached(after(6, 120.0))
    writer.work()
    assert sent.steps == [5, 6]


def test_the_last_step_is_always_kept(keeper, sent, writer):
    keeper.reached(after(1, 0.1))
    keeper.denoised(1)
    writer.work()

    assert sent.steps == [1]
    assert not keeper.nothing_computed


def test_a_step_is_kept_once(keeper, sent, writer):
    keeper.reached(after(1, 11.0))
    writer.work()
    keeper.save()
    keeper.denoised(1)
    writer.work()

    assert sent.steps == [1]


def test_what_is_asked_for_is_made_at_once(keeper, sent):
    keeper.save()
    assert sent.steps == []

    keeper.reached(after(1, 0.1))
    keeper.save()

    assert sent.steps == [1]


def test_nothing_is_made_of_a_job_that_is_not_wanted(keeper, sent, writer):
    keeper.reached(after(1, 11.0))
    keeper.close()
    writer.work()
    keeper.reached(after(2, 30.0))
    keeper.denoised(2)
    writer.work()

    assert sent.messages == []


@pytest.mark.parametrize(("keep", "steps"), [(False, []), (True, [1])])
def test_a_stop_leaves_the_last_step_only_if_it_is_to_be_kept(keep, steps, keeper, sent, new_spec):
    job = HostedJob(Run(7, new_spec(), (9,), Fraction(16)), sent, keeper)
    keeper.reached(after(1, 0.1))

    job.stop(keep=keep)
    keeper.save()

    assert sent.steps == steps
    assert job.handing_back is keep
    with pytest.raises(Stopped):
        job.tick()


def test_a_resumed_job_begins_to_count_where_it_was_left(sent, writer):
    keeper = Keeper(7, b"checkpoint", 10.0, sent, writer)
    keeper.resumed(5, 100.0)
    for step in (5, 6, 7):
        keeper.reached(after(step, 80.0 + step * 4))
        keeper.save() if step == 5 else writer.work()

    assert keeper.checkpoint is None
    assert sent.messages[0] == (Resumed(7, 5), b"")
    assert sent.steps == []
    keeper.reached(after(8, 110.0))
    writer.work()
    assert sent.steps == [8]


@pytest.mark.parametrize(("last", "nothing"), [(5, True), (6, False)])
def test_it_is_known_whether_a_checkpoint_left_something_to_denoise(last, nothing, sent, writer):
    keeper = Keeper(7, b"checkpoint", 10.0, sent, writer)
    keeper.resumed(5, 100.0)
    keeper.denoised(last)

    assert keeper.nothing_computed is nothing


def test_a_refusal_is_told(sent, writer):
    keeper = Keeper(7, b"checkpoint", 10.0, sent, writer)
    keeper.refused("another spec")
    keeper.denoised(3)

    assert keeper.checkpoint is None
    assert sent.messages == [(Refused(7, "another spec"), b"")]
    assert not keeper.nothing_computed


def test_previews_are_sent_with_their_shape(keeper, sent):
    import numpy as np

    keeper.preview(2, np.full((1, 2, 3, 3), 9, np.uint8))

    assert sent.messages == [(Preview(7, 2, (1, 2, 3, 3)), bytes([9] * 18))]


def test_a_state_that_was_written_into_ends_the_checkpoints_with_a_line(keeper, sent, writer, caplog):
    latents = torch.zeros(2)
    keeper.reached(after(1, 11.0, latents))
    latents += 1
    with caplog.at_level(logging.WARNING):
        writer.work()
    keeper.reached(after(2, 30.0))
    writer.work()

    assert sent.messages == []
    assert [record.message for record in caplog.records] == ["job makes no checkpoints"]


class Pending:
    """Stands for a device that has not computed a step yet."""

    def __init__(self, snapshot, ready=False):
        self.ready = ready
        self.step, self.seconds = snapshot.step, snapshot.seconds


def test_of_two_steps_the_one_that_the_device_has_computed_is_kept(keeper, sent):
    keeper.reached(after(1, 0.1))
    keeper.reached(Pending(after(2, 0.2)))
    keeper.save()

    assert sent.steps == [1]


def test_the_writer_survives_what_it_does_not_expect(caplog):
    writer = Writer()
    done = []

    def fail():
        raise MemoryError

    def leave():
        raise ChannelClosed

    for work in (fail, lambda: done.append(1), leave):
        writer.put(work)
    with pytest.raises(ChannelClosed):
        writer.run()

    assert done == [1]
    assert "no checkpoint" in caplog.text
