"""Messages and their bytes cross a pipe whole; a checkpoint's many bytes let other messages pass."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from multiprocessing import Pipe

import pytest

from vitascope_denoiser.channel import (
    Channel,
    ChannelClosed,
    Data,
    HandedBack,
    Part,
    Preview,
    Progress,
    Refused,
    Resumed,
    Run,
    Save,
    Saved,
    Skipped,
    Stop,
)


@pytest.fixture
def ends():
    ours, theirs = Pipe()
    ends = Channel(ours), Channel(theirs)
    yield ends
    for end in ends:
        end.close()


def test_messages_cross_unchanged(ends, new_spec):
    ours, theirs = ends
    messages = [
        (Run(1, new_spec(seeds=(1, 2), guidance_scale=2.0), (5, 4), Fraction(24, 7), True, (0, 1)), b"checkpoint"),
        (Run(2, new_spec(), (9,), Fraction(16)), b""),
        (Stop(1, True), b""),
        (Save(1), b""),
        (Progress(1, 2, 3), b""),
        (Data(1), b"chunk"),
        (Resumed(1, 7), b""),
        (Refused(1, "another spec"), b""),
        (Saved(1, 7, 2.5), b"checkpoint"),
        (Preview(1, 0, (1, 2, 3, 3)), b"picture"),
        (Skipped(1, 0), b""),
        (HandedBack(1), b""),
    ]
    for message, data in messages:
        ours.send(message, data)

    assert [theirs.receive() for _ in messages] == messages


def test_a_large_checkpoint_arrives_whole(ends):
    ours, theirs = ends
    data = os.urandom(3_500_000)
    threading.Thread(target=ours.send, args=(Saved(1, 2, 3.0), data), daemon=True).start()

    assert theirs.receive() == (Saved(1, 2, 3.0), data)


def test_other_messages_pass_a_large_checkpoint(ends):
    ours, theirs = ends
    pieces = [os.urandom(1000) for _ in range(3)]
    for job, piece in ((1, pieces[0]), (2, pieces[1])):
        ours._send(Part(job), memoryview(piece))
    ours.send(Progress(1, 2, 3))
    ours.send(Saved(2, 1, 1.0), b"end")
    ours.send(Saved(1, 1, 1.0), pieces[2])

    assert [theirs.receive() for _ in range(3)] == [
        (Progress(1, 2, 3), b""),
        (Saved(2, 1, 1.0), pieces[1] + b"end"),
        (Saved(1, 1, 1.0), pieces[0] + pieces[2]),
    ]


def test_the_end_of_the_other_side_is_told(ends):
    ours, theirs = ends
    theirs.close()

    with pytest.raises(ChannelClosed):
        ours.receive()
    with pytest.raises(ChannelClosed):
        ours.send(Saved(1, 2, 3.0), b"x" * 3_000_000)
