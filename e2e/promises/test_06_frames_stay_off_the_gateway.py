"""Promise 6: raw frames never cross the gateway; finished files do, when a client asks."""

from __future__ import annotations

from pathlib import Path

from clustering import metric
from counting_proxy import CountingProxy
from serving import Gateway

from tools.cluster.cluster import Cluster

MEBIBYTE = 1024 * 1024


def test_a_gateway_moves_no_frames(tmp_path: Path) -> None:
    running: list[Cluster] = []
    with (
        CountingProxy(lambda: running[0].s3.endpoint.rpartition("/")[2]) as store,
        CountingProxy(lambda: running[0].nats.url.rpartition("/")[2]) as broker,
    ):
        through = {"VITASCOPE_S3_ENDPOINT": f"http://{store.address}", "VITASCOPE_NATS_URL": f"nats://{broker.address}"}
        cluster = Cluster(tmp_path, service_env={"gateway": through})
        running.append(cluster)
        with cluster:
            gateway = Gateway(cluster.gateways[0])
            made = gateway.until(gateway.make(num_frames=60, size="640x480", chunk_frames=10))
            content = gateway.get(f"/v1/videos/{made['id']}/content").content
            raw = metric(cluster.process("denoiser"), "vitascope_stage_chunk_bytes_total", stage="denoise")

            assert raw > 50 * MEBIBYTE
            assert len(content) > 1000
            assert store.bytes + broker.bytes < len(content) + 2 * MEBIBYTE
