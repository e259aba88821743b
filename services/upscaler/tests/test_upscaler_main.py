"""The upscaler as a service: what it refuses, what it is wired to, and that importing it does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from vitascope_core.errors import InvalidWeights
from vitascope_core.handling import Work
from vitascope_core.plan import Plan, StageName, UpscaleOptions
from vitascope_core.task import Queue, Task, source_task
from vitascope_frames.segment_object import check
from vitascope_frames.segments import join_segments
from vitascope_frames.source_handler import SourceHandler
from vitascope_frames.testcard import Testcard
from vitascope_platform.environment import read_settings
from vitascope_upscaler.main import main, wired
from vitascope_upscaler.service_settings import UpscalerServiceSettings
from vitascope_upscaler.settings import DEFAULT_MODEL, SCALES
from vitascope_weights.device import Device

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MODEL_PATH", "https://x/y", "VITASCOPE_UPSCALER_*: model_path must be a local path"),
        ("ALLOWED_MODELS", "a/b,http://c", "VITASCOPE_UPSCALER_*: allowed_models must be a local path"),
        ("DEVICE", "tpu", "VITASCOPE_UPSCALER_DEVICE: Input should be 'auto', 'cpu' or 'cuda'"),
        ("MEMORY_MIB", "0", "VITASCOPE_UPSCALER_MEMORY_MIB: Input should be greater than or equal to 1"),
        ("LOADED_MODELS", "0", "VITASCOPE_UPSCALER_LOADED_MODELS: Input should be greater than or equal to 1"),
        ("SCALES", "2,9", "VITASCOPE_UPSCALER_*: scales must be from 1 to 8, got 2, 9"),
        ("SCALES", "1.5", "VITASCOPE_UPSCALER_SCALES"),
        ("SCALES", "", "VITASCOPE_UPSCALER_*: scales must be from 1 to 8, got none"),
        ("BANDED", "perhaps", "VITASCOPE_UPSCALER_BANDED: Input should be a valid boolean"),
        ("COMPILE", "max", "VITASCOPE_UPSCALER_COMPILE: Input should be a valid boolean"),
        ("MODELPATH", "x", "unknown variable VITASCOPE_UPSCALER_MODELPATH; did you mean VITASCOPE_UPSCALER_M"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str
) -> None:
    environment.setenv(f"VITASCOPE_UPSCALER_{variable}", value)

    with pytest.raises(SystemExit, match="2"):
        main()

    told = capsys.readouterr().err
    assert told.startswith(f"vitascope-upscaler: error: {said}")
    assert told.count("\n") == 1


def test_settings_come_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    defaults = read_settings(UpscalerServiceSettings).upscaler.upscaler
    environment.setenv("VITASCOPE_UPSCALER_ALLOWED_MODELS", "a/b, /weights/c ,")
    environment.setenv("VITASCOPE_UPSCALER_DEVICE", "cpu")
    environment.setenv("VITASCOPE_UPSCALER_MEMORY_MIB", "100")
    environment.setenv("VITASCOPE_UPSCALER_SCALES", "2, 4")
    environment.setenv("VITASCOPE_UPSCALER_BANDED", "true")
    environment.setenv("VITASCOPE_UPSCALER_COMPILE", "1")
    told = read_settings(UpscalerServiceSettings).upscaler.upscaler

    assert (defaults.model_path, defaults.device, defaults.allowed_models) == (DEFAULT_MODEL, Device.AUTO, ())
    assert (defaults.scales, defaults.banded, defaults.memory_mib, defaults.compile) == (SCALES, False, None, False)
    assert (told.allowed_models, told.device, told.memory_mib) == (("a/b", "/weights/c"), Device.CPU, 100)
    assert (told.scales, told.banded, told.compile) == ((2.0, 4.0), True, True)


def test_importing_the_main_module_reads_and_starts_nothing() -> None:
    # A variable that no service takes: whoever read the environment would refuse it.
    code = (
        "import sys, threading, vitascope_upscaler.main;"
        "assert not {'diffusers', 'transformers'} & set(sys.modules);"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "VITASCOPE_WORKER_X": "1"})


def test_settings_and_card_need_no_torch() -> None:
    code = "import sys, vitascope_upscaler.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_the_service_is_not_ready_without_weights(environment: pytest.MonkeyPatch, store) -> None:
    environment.setenv("VITASCOPE_UPSCALER_MODEL_PATH", "/no/weights")
    environment.setenv("VITASCOPE_UPSCALER_DEVICE", "cpu")

    with pytest.raises(InvalidWeights, match="/no/weights"):
        await wired(read_settings(UpscalerServiceSettings), Frames(store)).__aenter__()


@dataclass
class Frames:
    """As much of a platform as a transform needs."""

    frames: object


async def test_the_service_enlarges_stored_chunks(
    environment, weights_folder, make_spec, store, control, tmp_path
) -> None:
    environment.setenv("VITASCOPE_UPSCALER_MODEL_PATH", str(weights_folder))
    environment.setenv("VITASCOPE_UPSCALER_DEVICE", "cpu")
    spec = make_spec(cuts=(2, 1), plan=Plan(upscale=UpscaleOptions(2)))
    source = Work(source_task(spec), spec, attempt=1, token="t", control=control)
    assert [record.index async for record in SourceHandler(Testcard(), store).chunks(source)] == [0, 1]

    segments = []
    async with wired(read_settings(UpscalerServiceSettings), Frames(store)) as station:
        assert station.queue == Queue(StageName.UPSCALE)
        assert (station.card.scales, station.card.models) == (SCALES, (str(weights_folder),))
        for index, start, frames in ((0, 0, 2), (1, 2, 1)):
            task = Task(spec.id, StageName.UPSCALE, attempt=1, output=0, index=index)
            work = Work(task, spec, attempt=1, token="t", control=control)
            (record,) = [record async for record in station.handler.chunks(work)]
            assert (record.start, record.frames, record.segment) == (start, frames, True)
            segments.append(store.objects[record.key])
            check(segments[-1])

    file = join_segments(segments, spec.fps, tmp_path / "a.mp4")
    assert (file.width, file.height, file.frames) == (2 * spec.denoise.width, 2 * spec.denoise.height, 3)


def test_the_service_runs_through_the_platforms_own_start(environment, capsys) -> None:
    environment.setenv("VITASCOPE_NATS_URL", "nats://127.0.0.1:1")
    environment.setenv("VITASCOPE_HEALTH_PORT", "not a port")

    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.startswith("vitascope-upscaler: error: VITASCOPE_HEALTH_PORT")
