"""Promise 8: one process or a cluster, the same pixels for the same spec."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import Api, Gateway, Server

from tools.cluster.cluster import Cluster

TESTCARD = {"num_frames": 30, "chunk_frames": 4, "size": "320x240", "seed": 5}
DEMO = {"num_frames": 17, "chunk_frames": 5, "size": "64x64", "num_inference_steps": 3, "seed": 5}


def files(api: Api, fields: dict[str, object]) -> list[bytes]:
    """Return a video's file, thumbnail and spritesheet."""
    video = api.until(api.make(**fields))["id"]
    return [api.get(f"/v1/videos/{video}/content?variant={v}").content for v in ("video", "thumbnail", "spritesheet")]


@pytest.mark.parametrize(("model", "fields"), [("testcard", TESTCARD), ("vitascope/demo", DEMO)])
def test_one_process_and_a_cluster_make_the_same_files(tmp_path: Path, model: str, fields: dict[str, object]) -> None:
    with Server(tmp_path / "one", f"--model-path={model}") as server:
        alone = files(server, fields)
    with Cluster(tmp_path / "many", model=model, ready_s=120) as cluster:
        together = files(Gateway(cluster.gateways[0]), fields)

    assert together == alone
