"""The interpolator as a service: what it refuses, what it is wired to, and that importing it does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from vitascope_core.errors import InvalidWeights
from vitascope_core.handling import Work
from vitascope_core.plan import InterpolateOptions, Plan, StageName
from vitascope_core.task import Queue, Task, source_task
from vitascope_frames import testcard
from vitascope_frames.codec import loads
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.testcard import Testcard
from vitascope_interpolator.main import main, wired
from vitascope_interpolator.service_settings import InterpolatorServiceSettings
from vitascope_interpolator.settings import DEFAULT_MODEL
from vitascope_platform.environment import read_settings
from vitascope_weights.device import Device

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MODEL_PATH", "https://x/y", "VITASCOPE_INTERPOLATOR_*: model_path must be a local path"),
        ("ALLOWED_MODELS", "a/b,http://c", "VITASCOPE_INTERPOLATOR_*: allowed_models must be a local path"),
        ("DEVICE", "tpu", "VITASCOPE_INTERPOLATOR_DEVICE: Input should be 'auto', 'cpu' or 'cuda'"),
        ("MEMORY_MIB", "0", "VITASCOPE_INTERPOLATOR_MEMORY_MIB: Input should be greater than or equal to 1"),
        ("LOADED_MODELS", "0", "VITASCOPE_INTERPOLATOR_LOADED_MODELS: Input should be greater than or equal to 1"),
        (
            "MODELPATH",
            "x",
            "unknown variable VITASCOPE_INTERPOLATOR_MODELPATH; did you mean VITASCOPE_INTERPOLATOR_M",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str
) -> None:
    environment.setenv(f"VITASCOPE_INTERPOLATOR_{variable}", value)

    with pytest.raises(SystemExit, match="2"):
        main()

    told = capsys.readouterr().err
    assert told.startswith(f"vitascope-interpolator: error: {said}")
    assert told.count("\n") == 1


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    defaults = read_settings(InterpolatorServiceSettings).interpolator.interpolator
    environment.setenv("VITASCOPE_INTERPOLATOR_ALLOWED_MODELS", "a/b, /weights/c ,")
    environment.setenv("VITASCOPE_INTERPOLATOR_DEVICE", "cpu")
    environment.setenv("VITASCOPE_INTERPOLATOR_MEMORY_MIB", "100")
    told = read_settings(InterpolatorServiceSettings).interpolator.interpolator

    assert (defaults.model_path, defaults.device, defaults.allowed_models) == (DEFAULT_MODEL, Device.AUTO, ())
    assert (told.allowed_models, told.device, told.memory_mib) == (("a/b", "/weights/c"), Device.CPU, 100)


def test_importing_the_main_module_reads_and_starts_nothing() -> None:
    # A variable that no service takes: whoever read the environment would refuse it.
    code = (
        "import sys, threading, vitascope_interpolator.main;"
        "assert not {'diffusers', 'transformers'} & set(sys.modules);"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "VITASCOPE_WORKER_X": "1"})


def test_settings_and_card_need_no_torch() -> None:
    code = "import sys, vitascope_interpolator.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_the_service_is_not_ready_without_weights(environment: pytest.MonkeyPatch, store) -> None:
    environment.setenv("VITASCOPE_INTERPOLATOR_MODEL_PATH", "/no/weights")
    environment.setenv("VITASCOPE_INTERPOLATOR_DEVICE", "cpu")

    with pytest.raises(InvalidWeights, match="/no/weights"):
        await wired(read_settings(InterpolatorServiceSettings), Frames(store)).__aenter__()


@dataclass
class Frames:
    """As much of a platform as a transform needs."""

    frames: object


async def test_the_service_interpolates_stored_chunks(environment, weights_folder, make_spec, store, control) -> None:
    environment.setenv("VITASCOPE_INTERPOLATOR_MODEL_PATH", str(weights_folder))
    environment.setenv("VITASCOPE_INTERPOLATOR_DEVICE", "cpu")
    spec = make_spec(cuts=(2, 1), plan=Plan(interpolate=InterpolateOptions()))
    source = Work(source_task(spec), spec, attempt=1, token="t", control=control)
    assert [record.index async for record in SourceHandler(Testcard(), store).chunks(source)] == [0, 1]

    async with wired(read_settings(InterpolatorServiceSettings), Frames(store)) as station:
        assert station.queue == Queue(StageName.INTERPOLATE)
        assert station.card.models == (str(weights_folder),)
        for index, start, frames in ((0, 0, 3), (1, 3, 2)):
            task = Task(spec.id, StageName.INTERPOLATE, attempt=1, output=0, index=index)
            work = Work(task, spec, attempt=1, token="t", control=control)
            (record,) = [record async for record in station.handler.chunks(work)]
            assert (record.start, record.frames, record.last) == (start, frames, index == 1)

    last = loads(store.objects[record.key])
    assert (testcard.read_number(last.frames[1]), last.fps) == (2, 2 * spec.fps)
