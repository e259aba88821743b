from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vitascope_core.errors import Stopped
from vitascope_frames import testcard
from vitascope_frames.testcard import Testcard

LONG_S = 60.0
"""Longer than the test may last: whoever waits this out has not heard the stop."""


@pytest.mark.parametrize("number", [0, 1, 12_345, 99_999, 2**20 - 1])
@pytest.mark.parametrize("size", [(16, 16), (18, 64), (64, 48), (250, 130), (512, 16)], ids=str)
def test_a_drawn_number_can_be_read(size, number) -> None:
    assert testcard.read_number(testcard.draw(number, *size, seed=3)) == number


def test_a_number_can_be_read_after_enlarging_and_in_rgba() -> None:
    frame = testcard.draw(77, 64, 48, seed=3).repeat(4, axis=0).repeat(4, axis=1)
    frame = np.concatenate([frame, np.full((*frame.shape[:2], 1), 255, np.uint8)], axis=2)

    assert testcard.read_number(frame) == 77


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((48, 64, 3), np.uint8),
        np.full((48, 64, 3), 255, np.uint8),
        (testcard.draw(1, 64, 48, 3) // 2 + testcard.draw(6, 64, 48, 3) // 2),
        testcard.draw(5, 64, 48, 3)[:, ::-1],
    ],
    ids=["black", "white", "blend", "mirrored"],
)
def test_what_is_no_testcard_is_not_read_as_one(frame) -> None:
    with pytest.raises(ValueError, match=r"blocks|check digit"):
        testcard.read_number(frame)


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 1048575"):
        testcard.draw(2**20, 64, 48, seed=0)


def test_the_seed_chooses_the_colour_and_the_number_moves_the_mark() -> None:
    first, other, later = testcard.draw(0, 64, 48, 1), testcard.draw(0, 64, 48, 2), testcard.draw(1, 64, 48, 1)

    assert tuple(first[-1, -1]) == tuple(testcard.colour_of(1)) != tuple(other[-1, -1])
    assert not np.array_equal(first[24:], later[24:])
    assert len({tuple(testcard.colour_of(seed)) for seed in (*range(100), 2**63 - 1)}) == 101


def test_chunks_are_cut_as_the_spec_says(make_spec, control) -> None:
    spec = make_spec(cuts=(3, 1, 2), seeds=(5, 6))

    chunks = list(Testcard().chunks(spec, control))

    assert [(c.output, c.index, c.start, len(c.frames), c.last) for c in chunks] == [
        (0, 0, 0, 3, False),
        (0, 1, 3, 1, False),
        (0, 2, 4, 2, True),
        (1, 0, 0, 3, False),
        (1, 1, 3, 1, False),
        (1, 2, 4, 2, True),
    ]
    assert {c.fps for c in chunks} == {spec.fps}


def test_frames_are_numbered_through_each_output(make_spec, control) -> None:
    chunks = list(Testcard().chunks(make_spec(cuts=(3, 1, 2), seeds=(5, 6)), control))

    for output, seed in enumerate((5, 6)):
        frames = [frame for c in chunks if c.output == output for frame in c.frames]
        assert all(np.array_equal(frame, testcard.draw(n, 64, 48, seed)) for n, frame in enumerate(frames))


def test_the_lead_is_the_last_frame_of_the_chunk_before(make_spec, control) -> None:
    first, second, third = Testcard().chunks(make_spec(cuts=(3, 1, 2)), control)

    assert first.lead is None
    assert np.array_equal(second.lead, first.frames[-1])
    assert np.array_equal(third.lead, second.frames[-1])


def test_every_step_and_every_chunk_is_ticked(make_spec, control) -> None:
    list(Testcard().chunks(make_spec(cuts=(3, 2), steps=3), control))

    assert control.ticks == [(1, 3), (2, 3), (3, 3), (None, None), (None, None)]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pace", [{"step_s": LONG_S}, {"chunk_s": LONG_S}], ids=str)
def test_a_stop_is_heard_within_a_step_or_chunk(make_spec, control, pace) -> None:
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: list(Testcard(**pace).chunks(make_spec(), control)))
        if "chunk_s" in pace:
            assert control.ticked.wait(10)
        control.stop()

        with pytest.raises(Stopped):
            made.result()


@pytest.mark.timeout(20)
def test_the_steps_of_two_jobs_exclude_each_other(make_spec, new_control) -> None:
    card = Testcard()
    seen: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    class Recorded(new_control):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def tick(self, step: int | None = None, steps: int | None = None) -> None:
            super().tick(step, steps)
            if step is not None:
                seen.append(self.name)
                inside.set()
                assert go_on.wait(10)

    first, second = Recorded("first"), Recorded("second")
    with ThreadPoolExecutor(2) as pool:
        pool.submit(lambda: list(card.chunks(make_spec(), first)))
        assert inside.wait(10)
        waiting = pool.submit(lambda: list(card.chunks(make_spec(), second)))
        assert second.ticked.wait(10)  # it waits for the device, and says that it lives
        go_on.set()
        waiting.result()

    assert seen == ["first", "first", "second", "second"]


@pytest.mark.timeout(20)
def test_chunks_of_one_job_are_made_while_the_next_denoises(make_spec, new_control) -> None:
    card = Testcard()
    denoising, chunk_made = threading.Event(), threading.Event()

    class Denoises(new_control):
        def tick(self, step: int | None = None, steps: int | None = None) -> None:
            super().tick(step, steps)
            if step is not None:
                denoising.set()
                assert chunk_made.wait(10)  # holds the device until the other job has made a chunk

    earlier = card.chunks(make_spec(), new_control())
    first = next(earlier)
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(lambda: list(card.chunks(make_spec(), Denoises())))
        assert denoising.wait(10)
        second = next(earlier)
        chunk_made.set()
        later.result()

    assert [first.index, second.index] == [0, 1]


@pytest.mark.timeout(20)
def test_a_job_that_waits_for_the_device_hears_the_stop(make_spec, new_control) -> None:
    card = Testcard(step_s=LONG_S)
    holder, waiter = new_control(), new_control()
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(lambda: list(card.chunks(make_spec(), holder)))
        waiting = pool.submit(lambda: list(card.chunks(make_spec(), waiter)))
        waiter.stop()
        with pytest.raises(Stopped):
            waiting.result()
        holder.stop()
        with pytest.raises(Stopped):
            held.result()


def test_the_cards_defaults_are_within_its_limits() -> None:
    card = testcard.testcard_card("demo")
    defaults = card.defaults

    card.width.check("width", defaults.width)
    card.height.check("height", defaults.height)
    card.num_frames.check("num_frames", defaults.num_frames)
    card.num_inference_steps.check("num_inference_steps", defaults.num_inference_steps)
    assert card.num_frames.high * defaults.width * defaults.height <= card.max_pixels
    assert card.num_frames.high < 2**20
