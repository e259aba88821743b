"""A cluster in which every service has credentials of its own: it works, and nobody may do more than they must."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
import urllib3
from clustering import INVERTED, INVERTER, inverter
from minio import Minio
from minio.error import S3Error
from serving import Gateway

from tools.cluster.cluster import Cluster, Program
from vitascope_core.errors import InvalidSettings
from vitascope_platform.nats_connection import NatsConnection, NatsSettings, nats_connected

FRAMES, RESULTS = "vitascope-frames", "vitascope-results"
JOB = "$KV.vs-jobs.video_1"
CARDS = "$KV.vs-cards"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    second = {
        "VITASCOPE_DENOISER_MODEL_PATH": "testcard",
        "VITASCOPE_DENOISER_POOL": "second",
        "VITASCOPE_DENOISER_SERVED_MODEL_NAME": "second",
    }
    extra = {INVERTER: inverter(1), "other": Program("vitascope_denoiser", env=second)}
    folder = tmp_path_factory.mktemp("secured")
    with Cluster(folder, extra=extra, pools=["second"], secured=True) as cluster:
        with store_client(cluster, cluster.s3.access_key, cluster.s3.secret_key) as client:
            client.make_bucket("foreign")
        yield cluster


def test_it_makes_videos_and_nobody_is_refused_anything(cluster: Cluster) -> None:
    gateway = Gateway(cluster.gateways[0])
    made = [gateway.make(num_frames=9, model=model, **INVERTED) for model in ("testcard", "second")]

    done = [gateway.until(video) for video in made]
    again = httpx.post(f"{gateway.url}/v1/videos/enhance", json={"video_id": made[1], **INVERTED}, timeout=60).json()
    done.append(gateway.until(again["id"]))
    files = [gateway.get(f"/v1/videos/{video['id']}/content").content for video in done]
    deleted = httpx.delete(f"{gateway.url}/v1/videos/{made[0]}").status_code

    assert [video["status"] for video in done] == ["completed"] * 3
    assert all(b"ftyp" in content[:16] for content in files)
    assert deleted == 200
    with store_client(cluster, cluster.s3.access_key, cluster.s3.secret_key) as client:
        # The uploader clears up behind the end that we saw.
        deadline = time.monotonic() + 30
        while list(client.list_objects(FRAMES, "jobs/", recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for service in ("gateway", "denoiser", "other", "uploader", INVERTER):
        logs = cluster.logs(service).lower()
        assert "permissions violation" not in logs, service
        assert "access is denied" not in logs, service


def test_the_doctor_finds_nothing_wrong_with_the_monitors_rights(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "vitascope_cli", "doctor", "--json", "--pool=main", "--pool=second"]
    done = subprocess.run(command, env=cluster.env(), capture_output=True, text=True, timeout=60, check=False)

    findings = json.loads(done.stdout)["findings"]
    assert (done.returncode, [finding for finding in findings if finding["verdict"] == "problem"]) == (0, [])
    assert {finding["check"] for finding in findings if finding["verdict"] == "skipped"} == {"tasks", "result links"}
    queues = {finding["check"]: finding["verdict"] for finding in findings if finding["check"].startswith("queue ")}
    assert queues == dict.fromkeys(
        ["queue denoise-main", "queue denoise-second", "queue ingest", "queue upscale", "queue upload"], "ok"
    )


def test_the_doctor_says_what_a_services_rights_hide_from_it(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "vitascope_platform.doctor", "--json"]
    done = subprocess.run(command, env=cluster.env("gateway"), capture_output=True, text=True, timeout=60, check=False)

    verdicts = {finding["check"]: finding["verdict"] for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0
    assert (verdicts["layout"], verdicts["frames store"], verdicts["results store"]) == ("warning", "ok", "ok")
    for name, value in cluster.env("gateway").items():
        if name.startswith("VITASCOPE_") and name.endswith(("_PASSWORD", "_SECRET_KEY")):
            assert value not in done.stdout + done.stderr


REFUSED = {
    "gateway": [
        "vs.tasks.upscale.any.video_1",
        "$JS.API.CONSUMER.MSG.NEXT.vs-tasks.denoise-main",
        "$JS.ACK.vs-tasks.upload.1.1.1.1.0",
        "$JS.API.STREAM.DELETE.vs-tasks",
        f"{CARDS}.pool.main.card",
        "$KV.vs-workers.denoiser.host-1",
    ],
    "denoiser-main": [
        "vs.tasks.denoise.second.video_1",
        "vs.tasks.ingest.any.video_1",
        "$JS.API.CONSUMER.MSG.NEXT.vs-tasks.denoise-second",
        "$JS.API.CONSUMER.MSG.NEXT.vs-tasks.upload",
        "$JS.ACK.vs-tasks.denoise-second.1.1.1.1.0",
        f"{JOB}.spec",
        f"{CARDS}.pool.second.card",
        f"{CARDS}.stage.upscale.card",
        "$KV.vs-idem.key",
        "$JS.API.STREAM.DELETE.vs-tasks",
        "$JS.API.STREAM.PURGE.KV_vs-jobs",
        "$JS.API.CONSUMER.DELETE.vs-tasks.denoise-main",
        "$JS.API.STREAM.MSG.GET.KV_vs-idem",
    ],
    INVERTER: ["vs.tasks.denoise.main.video_1", f"{JOB}.spec", f"{CARDS}.stage.interpolate.card"],
    "uploader": [
        "vs.tasks.denoise.main.video_1",
        "$JS.API.CONSUMER.MSG.NEXT.vs-tasks.upscale",
        "$JS.ACK.vs-tasks.denoise-main.1.1.1.1.0",
        f"{JOB}.spec",
        f"{CARDS}.stage.upscale.card",
        "$JS.API.STREAM.PURGE.KV_vs-jobs",
    ],
    "bootstrap": ["vs.tasks.denoise.main.video_1", f"{JOB}.spec", f"{JOB}.end", "$JS.API.STREAM.DELETE.vs-tasks"],
    "monitor": [
        "vs.tasks.denoise.main.video_1",
        f"{JOB}.end",
        "$KV.vs-workers.denoiser.host-1",
        "$JS.API.STREAM.PURGE.vs-tasks",
        "$JS.API.STREAM.MSG.GET.KV_vs-jobs",
        "$JS.API.CONSUMER.MSG.NEXT.vs-tasks.upload",
    ],
}
"""What each may not publish to; a few of all subjects, those that would hurt."""

ALLOWED = {
    "gateway": ["vs.tasks.denoise.main.video_1", f"{JOB}.spec"],
    "denoiser-main": ["vs.tasks.upload.any.video_1", f"{JOB}.end", f"{CARDS}.pool.main.card"],
    INVERTER: ["vs.tasks.upload.any.video_1", f"{CARDS}.stage.upscale.card"],
    "uploader": [f"{JOB}.end", "vs.tasks.ingest.any.video_1", "vs.tasks.upscale.any.video_1"],
    "bootstrap": ["$JS.API.STREAM.INFO.vs-tasks"],
    "monitor": ["$KV.vs-workers.doctor.x"],
}
"""What shows that it is the right and not the login that the refusals are about."""


@pytest.mark.parametrize("identity", REFUSED)
async def test_the_broker_refuses_what_a_service_need_not_say(cluster: Cluster, identity: str) -> None:
    gateway = Gateway(cluster.gateways[0])
    video = gateway.make(num_frames=9, model="testcard")

    assert await refused(cluster, identity, REFUSED[identity] + ALLOWED[identity]) == REFUSED[identity]
    assert gateway.until(video)["status"] == "completed"


@pytest.mark.parametrize("subject", ["_INBOX_vs-uploader.>", "vs.tasks.>", "$KV.>", ">", "_INBOX.>"])
async def test_nobody_listens_to_others(cluster: Cluster, subject: str) -> None:
    async with nats_connected(login(cluster, "denoiser-main"), "test") as connection:
        await connection.client.subscribe(subject)
        told = await all_refusals(connection)

    assert f'for subscription to "{subject.lower()}"' in told


async def test_nobody_is_let_in_without_a_password(cluster: Cluster) -> None:
    with pytest.raises(InvalidSettings, match="refuses us"):
        async with nats_connected(NatsSettings(url=cluster.nats.url), "test"):
            pass
    with store_client(cluster, None, None) as anonymous:
        assert not may(lambda: list(anonymous.list_objects(FRAMES)))


READ, WRITE, LIST = "read", "write", "list"
STORE = {
    "gateway": {FRAMES: {WRITE, LIST}, RESULTS: {READ, WRITE, LIST}},
    "denoiser-main": {FRAMES: {READ, WRITE, LIST}, RESULTS: {WRITE, LIST}},
    INVERTER: {FRAMES: {READ, WRITE, LIST}, RESULTS: {WRITE, LIST}},
    "uploader": {FRAMES: {READ, WRITE, LIST}, RESULTS: {WRITE, LIST}},
    "monitor": {FRAMES: set[str](), RESULTS: set[str]()},
    # The store knows no right to make a bucket without all rights in it.
    "bootstrap": {FRAMES: {READ, WRITE, LIST}, RESULTS: {READ, WRITE, LIST}},
}


@pytest.mark.parametrize("identity", STORE)
@pytest.mark.parametrize("bucket", [FRAMES, RESULTS, "foreign"])
def test_the_store_refuses_what_a_service_need_not_do(cluster: Cluster, identity: str, bucket: str) -> None:
    with store_client(cluster, cluster.s3.access_key, cluster.s3.secret_key) as client:
        client.put_object(bucket, "there", io.BytesIO(b"x"), 1)
    keys = cluster.credentials(identity)
    with store_client(cluster, keys["VITASCOPE_S3_ACCESS_KEY"], keys["VITASCOPE_S3_SECRET_KEY"]) as client:
        tries = {
            READ: lambda: client.get_object(bucket, "there").release_conn(),
            WRITE: lambda: client.put_object(bucket, "new", io.BytesIO(b"x"), 1),
            LIST: lambda: list(client.list_objects(bucket)),
        }
        found = {name for name, call in tries.items() if may(call)}

    assert found == STORE[identity].get(bucket, set())


def test_the_gateway_reads_previews_and_no_frames(cluster: Cluster) -> None:
    wanted = {"jobs/video_1/1/preview-0": True, "jobs/video_1/1/denoise/0-0": False, "preview-0": False}
    with store_client(cluster, cluster.s3.access_key, cluster.s3.secret_key) as client:
        for key in wanted:
            client.put_object(FRAMES, key, io.BytesIO(b"x"), 1)
    keys = cluster.credentials("gateway")
    with store_client(cluster, keys["VITASCOPE_S3_ACCESS_KEY"], keys["VITASCOPE_S3_SECRET_KEY"]) as client:
        found = {key: may(lambda: client.get_object(FRAMES, key).release_conn()) for key in wanted}  # noqa: B023

    assert found == wanted


@contextmanager
def store_client(cluster: Cluster, access_key: str | None, secret_key: str | None) -> Iterator[Minio]:
    pool, host = urllib3.PoolManager(), cluster.s3.endpoint.partition("://")[2]
    try:
        yield Minio(host, access_key, secret_key, secure=False, region="us-east-1", http_client=pool)
    finally:
        pool.clear()


def may(call: Callable[[], object]) -> bool:
    try:
        call()
    except S3Error as error:
        if error.code != "AccessDenied":
            raise
        return False
    return True


NOBODYS = "nobody.may"
"""Refused to all; once this is heard, so is everything before."""


def login(cluster: Cluster, identity: str) -> NatsSettings:
    found = cluster.credentials(identity)
    return NatsSettings(
        url=cluster.nats.url, user=found["VITASCOPE_NATS_USER"], password=found["VITASCOPE_NATS_PASSWORD"]
    )


async def all_refusals(connection: NatsConnection) -> str:
    """Return what the connection was refused so far, in lower case, as nats-py tells it."""
    await connection.client.publish(NOBODYS)
    async with asyncio.timeout(20):
        while not any(NOBODYS in refusal for refusal in connection.refusals):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    return " ".join(connection.refusals).lower()


async def refused(cluster: Cluster, identity: str, subjects: list[str]) -> list[str]:
    """Return those of ``subjects`` that the identity may not publish to; what is sent changes nothing."""
    async with nats_connected(login(cluster, identity), "test") as connection:
        for subject in subjects:
            # The stream named here is none of ours, so what the broker lets pass is refused by the stream.
            await connection.client.publish(subject, b"", headers={"Nats-Expected-Stream": "none"})
        told = await all_refusals(connection)
    return [subject for subject in subjects if f'for publish to "{subject.lower()}"' in told]
