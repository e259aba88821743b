"""Plans, tasks and who follows whom."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vitascope_core.job import ChunkRecord, DenoiseSpec, JobKind, JobSpec, OutputSpec
from vitascope_core.plan import InterpolateOptions, Plan, StageName, UpscaleOptions
from vitascope_core.task import Queue, Task, source_task, successor

DENOISE, INTERPOLATE, UPSCALE, UPLOAD = StageName.DENOISE, StageName.INTERPOLATE, StageName.UPSCALE, StageName.UPLOAD
BOTH = Plan(interpolate=InterpolateOptions(2), upscale=UpscaleOptions(4))


def job(plan: Plan, frames: int = 5) -> JobSpec:
    denoise = DenoiseSpec("p", 64, 64, 4, (1, 2), frames)
    return JobSpec(
        "video_1", JobKind.VIDEO, "wan", "m", 0, 1, denoise, (frames,), OutputSpec("mp4", 50), Fraction(16), plan
    )


def record(stage: StageName, output: int = 0, index: int = 0) -> ChunkRecord:
    return ChunkRecord(3, stage, output, index, "k", 0, 1, last=False)


def test_interpolation_comes_before_upscaling() -> None:
    stages, stage = [DENOISE], DENOISE
    while stage is not UPLOAD:
        stage = BOTH.after(stage)
        stages.append(stage)

    assert stages == [DENOISE, INTERPOLATE, UPSCALE, UPLOAD]


@pytest.mark.parametrize(("plan", "last"), [(Plan(), DENOISE), (BOTH, UPSCALE)])
def test_the_last_stage_is_the_one_before_the_upload(plan: Plan, last: StageName) -> None:
    assert plan.last is last


def test_a_plan_has_no_options_for_a_stage_it_lacks() -> None:
    with pytest.raises(ValueError, match="upscale"):
        Plan().options(UPSCALE)


@pytest.mark.parametrize(("plan", "frames", "out", "fps"), [(Plan(), 5, 5, 16), (BOTH, 5, 17, 64), (BOTH, 1, 1, 16)])
def test_frames_and_rate_of_the_finished_file(plan: Plan, frames: int, out: int, fps: int) -> None:
    assert (job(plan, frames).out_frames, job(plan, frames).out_fps) == (out, fps)


def test_a_chunk_goes_to_the_next_transform_with_its_identity() -> None:
    task = successor(job(BOTH), record(DENOISE, output=1, index=7))

    assert task == Task("video_1", INTERPOLATE, attempt=3, output=1, index=7)


def test_the_upload_is_announced_by_the_first_chunk_alone() -> None:
    announced = [successor(job(Plan()), record(DENOISE, o, i)) for o, i in ((0, 0), (0, 1), (1, 0))]

    assert announced == [Task("video_1", UPLOAD, attempt=3), None, None]


def test_a_source_task_waits_in_its_pools_queue() -> None:
    assert str(source_task(job(Plan())).queue) == "denoise-wan"
    assert str(Queue(UPLOAD)) == "upload"


def test_message_ids_tell_tasks_apart() -> None:
    tasks = [Task("j", UPSCALE, attempt=a, output=o, index=i) for a in (1, 2) for o in (0, 1) for i in (0, 1)]

    assert len({task.message_id for task in tasks}) == len(tasks)


@pytest.mark.parametrize(("scale", "length"), [(4, 84), (1.5, 31), (1, 21), (2.99, 62)])
def test_a_side_grows_by_the_scale_and_keeps_no_part_of_a_pixel(scale, length) -> None:
    assert Plan(upscale=UpscaleOptions(scale)).enlarged(21) == length
    assert Plan().enlarged(21) == 21
