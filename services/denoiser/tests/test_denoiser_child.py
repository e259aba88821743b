"""The child process: same pixels as in-process, stops, survives nothing it should not, and is replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from vitascope_core import errors
from vitascope_core.errors import EngineCrashed, InvalidModel, InvalidRequest, Stopped, VitascopeError
from vitascope_denoiser.channel import EngineFault, Fault
from vitascope_denoiser.child import ChildEngine
from vitascope_denoiser.cutting import Cuts
from vitascope_denoiser.settings import EngineSettings

WAIT_S = 60.0


@pytest.fixture(scope="module")
def settings(folder_of):
    return EngineSettings(str(folder_of("wan")), device="cpu")


@pytest.fixture(scope="module")
def child(settings):
    # One thread in torch: the cores are the other processes' as well.
    os.environ["OMP_NUM_THREADS"] = "1"
    engine = ChildEngine(settings)
    engine.start()
    yield engine
    engine.close()
    del os.environ["OMP_NUM_THREADS"]


class Reader(threading.Thread):
    """Takes the chunks of a job in a thread of its own."""

    def __init__(self, child, job, control):
        super().__init__(daemon=True)
        self.chunks, self.error = [], None
        self._source = child.chunks(job, control)
        self.start()

    def run(self):
        try:
            for chunk in self._source:
                self.chunks.append(chunk)
        except (VitascopeError, EngineFault) as error:
            self.error = error

    def finished(self):
        self.join(WAIT_S)
        assert not self.is_alive()
        return self


def test_the_parent_side_imports_no_torch():
    code = "import sys, vitascope_denoiser.child; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_makes_the_chunks_of_an_engine_in_process(child, load_pipe, new_job, control, new_control):
    from vitascope_denoiser.engine import DiffusersEngine

    job = new_job((4, 4, 1), seeds=(3, 4))
    engine = DiffusersEngine(load_pipe("wan"))
    [latents] = engine.denoise([job.denoise], [new_control()])
    expected = list(engine.decode(latents, Cuts.of(job)))

    chunks = list(child.chunks(job, control))

    assert [(c.output, c.index, c.start, c.last, c.fps) for c in chunks] == [
        (c.output, c.index, c.start, c.last, c.fps) for c in expected
    ]
    for chunk, other in zip(chunks, expected, strict=True):
        assert np.array_equal(chunk.frames, other.frames)
        assert (chunk.lead is None) == (other.lead is None)
        assert chunk.lead is None or np.array_equal(chunk.lead, other.lead)
    assert control.steps == [(1, 3), (2, 3), (3, 3)]
    assert control.ticks >= len(chunks) + 3


def test_the_card_comes_from_the_child(child):
    card = child.start()

    assert card.pipeline == "WanPipeline"
    assert card.id == "wan"


def test_a_job_denoises_while_another_is_decoded(child, new_job, new_control):
    # Nobody takes the first job's chunks, so that it cannot get past the third of its nine.
    slow = child.chunks(new_job((1,) * 9), new_control())
    next(slow)
    second = new_control()
    reader = Reader(child, new_job((5,), num_inference_steps=2), second)

    assert second.stepped.wait(WAIT_S)
    while second.steps[-1] != (2, 2):
        assert second.stepped.wait(WAIT_S)
    assert reader.is_alive()  # its decode waits for the first's

    assert len(list(slow)) == 8
    assert len(reader.finished().chunks) == 1


def test_a_child_holds_few_chunks_that_nobody_takes(child, new_job, new_control):
    chunks = child.chunks(new_job((1,) * 9), new_control())
    next(chunks)
    behind = new_control()
    Reader(child, new_job((1,), num_inference_steps=1), behind)
    assert behind.stepped.wait(WAIT_S)

    [job] = [job for job in child._child._jobs.values() if not job.inbox.empty()]
    assert job.inbox.qsize() <= 3  # two chunks, and a tick before them
    chunks.close()


def test_a_stop_ends_the_job_within_a_step(child, new_job, new_control):
    stopping = new_control(stop_at=2)

    with pytest.raises(Stopped):
        list(child.chunks(new_job((5,), num_inference_steps=900), stopping))

    # Each step of a job that goes on is a sign of life of those behind it.
    behind = new_control()
    assert len(list(child.chunks(new_job((5,)), behind))) == 1
    assert behind.ticks < 20


def test_a_stop_from_another_thread_wakes_a_waiting_job(child, new_job, new_control):
    first = child.chunks(new_job((1,) * 9), new_control())
    next(first)
    waiting = new_control()
    reader = Reader(child, new_job((5,), num_inference_steps=1), waiting)
    assert waiting.stepped.wait(WAIT_S)

    waiting.stop()

    assert isinstance(reader.finished().error, Stopped)
    first.close()


def test_a_job_that_is_stopped_before_it_starts_reaches_no_child(child, new_job, control):
    control.stop()

    with pytest.raises(Stopped):
        next(child.chunks(new_job((5,)), control))


def test_an_abandoned_job_frees_the_child(child, new_job, new_control):
    abandoned = child.chunks(new_job((1,) * 9), new_control())
    next(abandoned)
    abandoned.close()

    assert len(list(child.chunks(new_job((5,)), new_control()))) == 1
    assert child._child._jobs == {}


def test_an_unexpected_error_ends_the_job_and_no_more(child, new_job, new_control):
    # Past the card's limits: the pipeline itself refuses it.
    with pytest.raises(EngineFault, match="divisible by 16"):
        list(child.chunks(new_job((5,), width=50), new_control()))

    assert len(list(child.chunks(new_job((5,)), new_control()))) == 1


def test_errors_keep_their_class(child, new_job, new_control):
    job = new_job((5,))
    wrong = type(job)(**{name: getattr(job, name) for name in job.__slots__} | {"cuts": (6,)})

    with pytest.raises(errors.Final, match="the model made 5 frames"):
        list(child.chunks(wrong, new_control()))


def test_a_dead_child_ends_its_jobs_and_is_replaced(child, new_job, new_control):
    first = child.pid
    running = [new_control(), new_control()]
    readers = [Reader(child, new_job((5,), num_inference_steps=900), control) for control in running]
    assert running[0].stepped.wait(WAIT_S)

    os.kill(first, signal.SIGKILL)

    for reader in readers:
        error = reader.finished().error
        assert isinstance(error, EngineCrashed)
        assert "SIGKILL" in str(error)
    loading = new_control()
    assert len(list(child.chunks(new_job((5,)), loading))) == 1
    assert child.pid != first
    assert loading.ticks > 3


def test_the_child_dies_with_its_parent(settings, tmp_path):
    code = f"""
import os, sys
from vitascope_denoiser.child import ChildEngine
from vitascope_denoiser.settings import EngineSettings
if __name__ == "__main__":
    engine = ChildEngine(EngineSettings({settings.model_path!r}, device="cpu"))
    engine._current()
    print(engine.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)

    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=WAIT_S)

    pid = int(done.stdout)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(WAIT_S)
    assert not psutil.pid_exists(pid)


def test_a_model_that_cannot_be_loaded_is_told_at_start(tmp_path):
    engine = ChildEngine(EngineSettings(str(tmp_path), device="cpu"))

    with pytest.raises(InvalidModel, match=r"no model_index.json"):
        engine.start()

    engine.close()
    assert not psutil.pid_exists(engine.pid)


def test_closing_ends_the_child_and_its_jobs(settings, new_job, new_control):
    engine = ChildEngine(settings)
    control = new_control()
    reader = Reader(engine, new_job((5,), num_inference_steps=900), control)
    assert control.stepped.wait(WAIT_S)

    engine.close()

    assert not psutil.pid_exists(engine.pid)
    assert isinstance(reader.finished().error, Stopped)
    with pytest.raises(Stopped):
        engine.start()


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("width", 50, "a multiple of 16"),
        errors.UnsupportedField("loras", "not here"),
        errors.DeviceOutOfMemory("denoise"),
        errors.Final("no"),
        errors.ModelNotFound("x", ["y"]),
    ],
)
def test_every_core_error_survives_the_crossing(error):
    again = Fault.of(error).error

    assert type(again) is type(error)
    assert (str(again), again.code) == (str(error), error.code)
    assert getattr(again, "field", None) == getattr(error, "field", None)
