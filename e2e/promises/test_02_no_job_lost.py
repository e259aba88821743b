"""Promise 2: no accepted job is lost. Here in one process: killed, restarted, its source crashing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, numbers

from vitascope_cli.node import NodeSettings, Stages, running
from vitascope_core.errors import EngineCrashed
from vitascope_core.job import EndState, JobSpec
from vitascope_core.ports import Control
from vitascope_frames.checkpoints import Checkpoints, Kept
from vitascope_frames.chunk import Chunk
from vitascope_frames.testcard import Testcard, testcard_card
from vitascope_gateway.admission import admit_video
from vitascope_gateway.fields import Fields
from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.settings import WorkerSettings

SLOW = ("--model-path=testcard", "--testcard-step-s=0.2", "--testcard-chunk-s=0.2")


@pytest.mark.parametrize("percent", [20, 85], ids=["denoising", "decoding"])
def test_a_killed_server_completes_its_job_once_when_it_is_started_again(state: Path, percent: int) -> None:
    server = Server(state, *SLOW)
    with server:
        video = server.make(num_inference_steps=4, num_frames=12, chunk_frames=1, seed=3)
        server.until_progress(video, percent)
        server.kill()
        server.start()
        done = server.until(video)
        data = server.get(f"/v1/videos/{video}/content").content

        assert (done["status"], done["progress"], done["usage"]["attempts"]) == ("completed", 100, 2)
        assert numbers(data) == list(range(12))
        tokens = {name.split("/")[1] for name in server.files("results") if name.startswith(video)}
        assert (len(tokens), server.files("frames")) == (1, [])


def test_finished_jobs_stay_listed_and_downloadable_over_a_restart(state: Path) -> None:
    server = Server(state, "--model-path=testcard")
    with server:
        video = server.make()
        before = server.until(video)
        data = server.get(f"/v1/videos/{video}/content").content
        assert server.terminate() == 0
        server.start()

        assert server.get("/v1/videos").json()["data"] == [before]
        assert server.get(f"/v1/videos/{video}/content").content == data


def test_a_stopped_server_hands_its_job_back_without_counting_a_crash(state: Path) -> None:
    server = Server(state, *SLOW, env={"VITASCOPE_WORKER_GRACE_S": "0"})
    with server:
        video = server.make(num_inference_steps=8)
        for _ in range(4):
            server.until_progress(video, 10)
            assert server.terminate() == 0
            server.start()
        assert server.until(video)["status"] == "completed"


def test_a_queued_job_survives_a_kill(state: Path) -> None:
    server = Server(state, *SLOW)
    with server:
        videos = [server.make(num_frames=2) for _ in range(4)]
        server.kill()
        server.start()

        assert [server.until(video)["status"] for video in videos] == ["completed"] * 4


def test_a_second_server_on_the_same_state_is_refused(state: Path) -> None:
    with Server(state, "--model-path=testcard") as first:
        with pytest.raises(RuntimeError, match="another server") as caught:
            Server(state, "--model-path=testcard").start()

        assert "Traceback" not in str(caught.value)
        assert first.get("/livez").status_code == 200


class CrashingSource:
    """A source whose process always dies: at the first step, or after its first chunk."""

    def __init__(self, chunks: int) -> None:
        self._chunks = chunks
        self.runs = 0

    def chunks(self, spec: JobSpec, control: Control, checkpoints: Checkpoints) -> Iterator[Chunk | Kept]:
        self.runs += 1
        made = Testcard().chunks(spec, control, checkpoints)
        for _ in range(self._chunks):
            yield next(made)
        raise EngineCrashed("the engine was ended by SIGSEGV")


@pytest.mark.parametrize(("chunks", "runs"), [(0, 3), (1, 4)], ids=["at once", "after its first chunk"])
async def test_a_job_whose_source_always_crashes_ends_as_failed(tmp_path: Path, chunks: int, runs: int) -> None:
    source = CrashingSource(chunks)
    settings = NodeSettings(WorkerSettings(), GatewaySettings())
    async with running(tmp_path, Stages(testcard_card("testcard"), source), settings) as node:
        fields = Fields({"prompt": "x", "chunk_frames": 4})
        spec = admit_video(fields, node.board.catalogue, "", node.platform.clock, settings.gateway)
        await node.submission.submit(spec)
        end = await node.board.wait_end(spec.id, timeout_s=120)
        async with asyncio.timeout(30):
            # The worker clears up just after the end is seen.
            while await node.platform.bus.count(spec.id) or await node.platform.frames.list("jobs/"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert end is not None
    assert (end.state, end.code, source.runs) == (EndState.FAILED, "worker_crashed", runs)
    assert "SIGSEGV" in end.message
