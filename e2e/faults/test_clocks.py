"""Fault 18: wall clocks that are an hour wrong, each in its own direction."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aftermath import SHORT, content, result_tokens, until_tidy
from clustering import INVERTED, INVERTER, inverter, metric
from serving import Gateway, decode

from tools.cluster.cluster import DENOISER, GATEWAY, UPLOADER, Cluster
from vitascope_frames.testcard import read_number

HOUR_S = 3600
VIDEO = {"num_frames": 24, "chunk_frames": 4, "num_inference_steps": 10, "seed": 3, **INVERTED}
E2E = Path(__file__).parents[1]
REAPER = {"VITASCOPE_GATEWAY_REAPER_EVERY_S": "0.2", "VITASCOPE_GATEWAY_REAPER_GRACE_S": "1"}


def skewed(seconds: int) -> dict[str, str]:
    """Return the variables that put a process's wall clock wrong."""
    paths = os.pathsep.join(map(str, (E2E / "skewed_clock", E2E)))
    return {"PYTHONPATH": paths, "WALL_CLOCK_SKEW_S": str(seconds)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The first gateway, the second denoiser and the uploader are an hour slow, the others an hour fast."""
    env = {
        GATEWAY: {**skewed(HOUR_S), **REAPER},
        DENOISER: {**skewed(HOUR_S), "VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.3"},
        UPLOADER: skewed(-HOUR_S),
    }
    cluster = Cluster(
        tmp_path_factory.mktemp("cluster"),
        replicas={GATEWAY: 1, DENOISER: 1},
        env=SHORT,
        service_env=env,
        extra={INVERTER: inverter(delay_s=0.1, **skewed(HOUR_S))},
    )
    with cluster:
        for service, index in ((GATEWAY, 0), (DENOISER, 1)):
            cluster.scale(service, 2, wait=False)
            cluster.kill(service, index)
            cluster.restart(service, index, extra=skewed(-HOUR_S), wait=False)
        cluster.wait_ready()
        yield cluster


def test_18_clocks_that_are_two_hours_apart_change_nothing(cluster: Cluster) -> None:
    slow, fast = (Gateway(url) for url in cluster.gateways)
    videos = [slow.make(**VIDEO), fast.make(**VIDEO)]
    deadline = time.monotonic() + 60
    while not metric(cluster.process(DENOISER, 0), "vitascope_stage_tasks_in_flight", stage="denoise"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for video in videos:
        fast.until_progress(video, 1)
    # The one that takes over cannot know by the clock how long the other has been silent.
    cluster.kill(DENOISER, 0)
    done = [fast.until(video) for video in videos]
    until_tidy(cluster, videos)
    seen_by_both = [[gateway.get(f"/v1/videos/{video}").json() for video in videos] for gateway in (slow, fast)]
    files = [content(gateway, video) for gateway, video in zip((fast, slow), videos, strict=True)]

    assert done[1]["created_at"] - done[0]["created_at"] == pytest.approx(2 * HOUR_S, abs=60)
    assert [each["status"] for each in done] == ["completed"] * 2
    assert sum(each["usage"]["attempts"] for each in done) > 2
    assert seen_by_both == [done, done]
    assert files[0] == files[1]
    assert [read_number(255 - frame) for frame in decode(files[0])] == list(range(24))
    assert [len(result_tokens(cluster, video)) for video in videos] == [1, 1]
