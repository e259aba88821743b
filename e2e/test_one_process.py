"""All stages in one process: cuts, a transform between source and sink, the embedded model."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Server, decode, numbers

from vitascope_cli.node import Node, NodeSettings, Stages, running
from vitascope_core.card import StageCard
from vitascope_core.job import JobEnd, JobSpec
from vitascope_core.plan import Options, StageName
from vitascope_frames.chunk import Chunk
from vitascope_frames.testcard import Testcard, draw, testcard_card
from vitascope_gateway.admission import admit_video
from vitascope_gateway.fields import Fields
from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.settings import WorkerSettings

SETTINGS = NodeSettings(WorkerSettings(), GatewaySettings())


class Inverter:
    """A transform that inverts colours."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def apply(self, chunk: Chunk, options: Options) -> Chunk:
        self.seen.append(chunk.index)
        return chunk.with_frames(255 - chunk.frames)


async def make(node: Node, **fields: Any) -> tuple[JobSpec, JobEnd]:
    values = Fields({"prompt": "x", "seed": 1, **fields})
    spec = admit_video(values, node.board.catalogue, "", node.platform.clock, SETTINGS.gateway)
    await node.submission.submit(spec)
    end = await node.board.wait_end(spec.id, timeout_s=120)
    assert end is not None
    assert end.code == "", end.message
    return spec, end


async def video(node: Node, end: JobEnd) -> bytes:
    return await node.platform.results.get(next(file.key for file in end.files if file.variant == "video"))


@pytest.fixture
def inverter() -> Inverter:
    return Inverter()


@pytest.fixture
async def node(tmp_path: Path, inverter: Inverter):
    card = StageCard(StageName.UPSCALE, scales=(1,))
    stages = Stages(testcard_card("testcard"), Testcard(), [(card, inverter)])
    async with running(tmp_path, stages, SETTINGS) as node:
        yield node


@pytest.mark.parametrize("fields", [{}, {"n": 2}], ids=["one output", "two outputs"])
async def test_chunk_cuts_do_not_change_the_file(node: Node, fields: dict[str, Any]) -> None:
    made = []
    for cut in (1, 5, 12, 30):
        spec, end = await make(node, num_frames=30, chunk_frames=cut, size="128x96", **fields)
        assert sum(spec.cuts) == 30
        made.append([await node.platform.results.get(f.key) for f in end.files if f.variant == "video"])

    assert made[1:] == made[:-1]
    assert all(numbers(data) == list(range(30)) for data in made[0])


async def test_a_transform_runs_between_source_and_sink(node: Node, inverter: Inverter) -> None:
    _, plain = await make(node, num_frames=10, chunk_frames=4, size="128x96")
    _, inverted = await make(
        node, num_frames=10, chunk_frames=4, size="128x96", enable_upscaling=True, upscaling_scale=1
    )
    before, after = decode(await video(node, plain)), decode(await video(node, inverted))

    assert sorted(inverter.seen) == [0, 1, 2]
    assert (len(before), len(after)) == (10, 10)
    for number, frame in enumerate(after):
        expected = 255 - draw(number, 128, 96, 1).astype(int)
        # The segments are encoded lossily: a level or two on average.
        assert np.abs(frame - expected).mean() < 4
    assert "upscale" in inverted.usage.seconds


async def test_nothing_of_a_finished_job_stays_behind(node: Node) -> None:
    spec, _ = await make(node, num_frames=10, chunk_frames=4, enable_upscaling=True, upscaling_scale=1)
    async with asyncio.timeout(30):
        while await node.platform.bus.count(spec.id):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert await node.platform.frames.list("") == []
    assert {change.part for change in await node.platform.jobs.all()} == {"spec", "end"}


async def test_many_jobs_at_once_all_complete(node: Node) -> None:
    ends = await asyncio.gather(
        *(
            make(node, num_frames=6, chunk_frames=2, seed=seed, enable_upscaling=seed % 2 == 0, upscaling_scale=1)
            if seed % 2 == 0
            else make(node, num_frames=6, chunk_frames=2, seed=seed)
            for seed in range(10)
        )
    )

    assert len({spec.id for spec, _ in ends}) == 10


async def test_a_card_that_is_not_served_any_more_is_withdrawn(tmp_path: Path) -> None:
    old = replace(testcard_card("old"), id="old")
    async with running(
        tmp_path, Stages(old, Testcard(), [(StageCard(StageName.UPSCALE, scales=(2,)), Inverter())]), SETTINGS
    ):
        pass
    async with running(tmp_path, Stages(testcard_card("new"), Testcard()), SETTINGS) as node:
        assert [card.pool for card in node.board.pools()] == ["new"]
        assert node.board.stages() == ()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    with Server(tmp_path_factory.mktemp("demo")) as server:
        yield server


def test_the_embedded_model_makes_a_video_of_the_size_it_promises(demo: Server) -> None:
    made = demo.until(demo.make())
    frames = decode(demo.get(f"/v1/videos/{made['id']}/content").content)
    width, height = map(int, made["size"].split("x"))

    assert (len(frames), frames[0].shape) == (made["num_frames"], (height, width, 3))
    assert np.std(frames[0]) > 1


def test_the_embedded_model_repeats_itself_with_the_same_seed(demo: Server) -> None:
    small = {"num_frames": 5, "num_inference_steps": 2, "size": "64x64"}
    videos = [demo.until(demo.make(seed=seed, **small)) for seed in (1, 1, 2)]
    first, same, other = (demo.get(f"/v1/videos/{made['id']}/content").content for made in videos)

    assert first == same
    assert first != other


def engine_processes(server: Server) -> list[int]:
    """Return the processes that hold a server's model."""
    assert server.process is not None
    listed = Path(f"/proc/{server.process.pid}/task").glob("*/children")
    children = [int(pid) for path in listed for pid in path.read_text().split()]
    return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_killed_engine_costs_an_attempt_and_no_job(demo: Server) -> None:
    video = demo.make(num_inference_steps=60, num_frames=49)
    demo.until_progress(video, 5)
    engines = engine_processes(demo)
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    done = demo.until(video)

    assert (len(engines), done["status"], done["usage"]["attempts"]) == (1, "completed", 2)
