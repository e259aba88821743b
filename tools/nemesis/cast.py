"""The cluster that is tormented: two processes of everything, short waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tools.cluster.cluster import DENOISER, GATEWAY, UPLOADER, Cluster, Program

INVERTER = "inverter"
BROKER, STORE = "broker", "store"
REPLICAS = {GATEWAY: 2, DENOISER: 2, INVERTER: 2, UPLOADER: 2}

ACK_WAIT_S = 3.0
MAX_DELIVERIES = 6
"""Of a chunk or an upload, and attempts of a source without progress: more than elsewhere, because here the innocent
meet faults every second as well. A job that fails although it met fewer has been wronged."""

_ENV = {
    "VITASCOPE_WORKER_ACK_WAIT_S": f"{ACK_WAIT_S:g}",
    "VITASCOPE_WORKER_HEARTBEAT_S": "1",
    "VITASCOPE_WORKER_CHECK_S": "0.2",
    "VITASCOPE_WORKER_MAX_DELIVERIES": str(MAX_DELIVERIES),
    "VITASCOPE_WORKER_MAX_CRASHES": str(MAX_DELIVERIES),
    "VITASCOPE_S3_READ_TIMEOUT_S": "2",
}
_SERVICE_ENV = {
    GATEWAY: {
        "VITASCOPE_GATEWAY_REAPER_EVERY_S": "1",
        "VITASCOPE_GATEWAY_REAPER_GRACE_S": "3",
        "VITASCOPE_GATEWAY_MAX_QUEUED": "12",
    },
    DENOISER: {
        "VITASCOPE_DENOISER_TESTCARD_STEP_S": "0.1",
        "VITASCOPE_DENOISER_TESTCARD_CHUNK_S": "0.05",
        "VITASCOPE_DENOISER_CHECKPOINT_INTERVAL": "0.2",
    },
}
_ROOT = Path(__file__).resolve().parents[2]


def tormented(folder: Path, heard: Callable[[str, str], None]) -> Cluster:
    """Return the cluster, not started yet."""
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "VITASCOPE_INVERTER_DELAY_S": "0.15"}
    inverter = Program("tools.nemesis.inverter", REPLICAS[INVERTER], env, stage="upscale")
    replicas = {service: count for service, count in REPLICAS.items() if service != INVERTER}
    return Cluster(
        folder, replicas=replicas, env=_ENV, service_env=_SERVICE_ENV, extra={INVERTER: inverter}, heard=heard
    )
