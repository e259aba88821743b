"""The doctor on real servers: all well, and each thing that may be wrong."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import urllib3
from nats_fixtures import remove
from pydantic import SecretStr

from tools.cluster.nats_server import NatsServer
from tools.cluster.s3_server import S3Server
from vitascope_core.card import Defaults, Limits, Mode, ModelCard
from vitascope_core.plan import StageName
from vitascope_core.task import Task
from vitascope_platform import doctor
from vitascope_platform.bootstrap_nats import Layout, bootstrap_nats
from vitascope_platform.bootstrap_s3 import bootstrap_s3
from vitascope_platform.broker_examination import clock_finding
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.cards import Cards
from vitascope_platform.doctor import examine
from vitascope_platform.environment import ServiceSettings
from vitascope_platform.findings import Finding, Verdict
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.nats_connection import NatsConnection, NatsSettings, nats_connected
from vitascope_platform.s3_settings import Delivery, S3Settings

SIZE = Limits(64, 1024, 16)
CARD = ModelCard(
    pool="wan",
    id="studio/wan",
    modes=(Mode.TEXT_TO_VIDEO,),
    width=SIZE,
    height=SIZE,
    num_frames=Limits(1, 81, 4),
    num_inference_steps=Limits(1, 100),
    defaults=Defaults(832, 480, 50),
)


@dataclass
class Installation:
    settings: ServiceSettings
    nats: NatsConnection

    async def show(self, service: str, stage: str = "", pool: str = "") -> None:
        present = {"service": service, "instance": f"host-1-{stage}", "version": "1", "stage": stage, "pool": pool}
        await NatsKeyValue(self.nats, "workers").put(f"{service}.host-1-{stage}", json.dumps(present).encode())

    async def found(self, **changes: object) -> dict[str, Finding]:
        settings = replace(self.settings, **changes)
        return {finding.check: finding async for finding in examine(settings)}

    def s3(self, **changes: object) -> S3Settings:
        return self.settings.s3.model_copy(update=changes)


@pytest.fixture
async def installation(broker: NatsServer, s3: S3Server) -> AsyncIterator[Installation]:
    name = f"t{secrets.token_hex(4)}"
    nats = NatsSettings(url=broker.url, prefix=name, request_timeout_s=2)
    store = S3Settings(
        endpoint=s3.endpoint,
        access_key=s3.access_key,
        secret_key=SecretStr(s3.secret_key),
        frames_bucket=f"{name}-frames",
        results_bucket=f"{name}-results",
        connect_timeout_s=0.5,
    )
    async with nats_connected(nats, "test") as connection:
        yield Installation(ServiceSettings(nats=nats, s3=store), connection)
        await remove(connection)
    with urllib3.PoolManager() as pool:
        client = s3.client()
        client._http = pool
        for bucket in (store.frames_bucket, store.results_bucket):
            if client.bucket_exists(bucket):
                assert [item.object_name for item in client.list_objects(bucket, recursive=True)] == []
                client.remove_bucket(bucket)


@pytest.fixture
async def running(installation: Installation) -> Installation:
    await bootstrap_nats(installation.nats, Layout(("wan",)))
    await bootstrap_s3(installation.settings.s3)
    await Cards(NatsKeyValue(installation.nats, "cards")).put(CARD)
    await installation.show("gateway")
    await installation.show("denoiser", "denoise", "wan")
    await installation.show("uploader", "upload")
    await installation.show("uploader", "ingest")
    return installation


async def test_where_all_is_well_nothing_is_wrong_and_nothing_stays(running: Installation) -> None:
    before = await running.nats.call(f"STREAM.INFO.{running.nats.prefix}-tasks")
    found = await running.found()
    after = await running.nats.call(f"STREAM.INFO.{running.nats.prefix}-tasks")

    assert {check: finding.verdict for check, finding in found.items()} == {
        **dict.fromkeys(["broker", "jetstream", "layout", "records", "broker clock", "tasks", "gateway"], "ok"),
        **dict.fromkeys(["queue denoise-wan", "queue ingest", "queue upload"], "ok"),
        **dict.fromkeys(["frames store", "frames clock", "results store", "results clock"], "ok"),
        "result links": "skipped",
    }
    assert before["state"]["last_seq"] == after["state"]["last_seq"]
    assert [entry.key for entry in await NatsKeyValue(running.nats, "workers").entries("doctor.")] == []


async def test_a_broker_that_is_down_does_not_keep_it_from_the_stores(
    running: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitascope_platform.broker_examination.WAIT_S", 0.5)
    found = await running.found(nats=NatsSettings(url="nats://127.0.0.1:9"))

    assert (found["broker"].verdict, found["broker"].remedy) == (
        Verdict.PROBLEM,
        "Start nats-server there, or set VITASCOPE_NATS_URL.",
    )
    assert found["frames store"].verdict is Verdict.OK


async def test_without_a_bootstrap_it_asks_for_one(installation: Installation) -> None:
    found = await installation.found()

    assert found["layout"].verdict is Verdict.PROBLEM
    assert f"stream {installation.nats.prefix}-tasks is missing" in found["layout"].text
    assert "vitascope_platform.bootstrap" in found["layout"].remedy
    assert found["records, tasks, workers"].verdict is Verdict.SKIPPED
    assert found["frames store"].verdict is Verdict.PROBLEM
    assert "Create it with" in found["frames store"].remedy


async def test_what_differs_from_the_bootstrap_is_named(running: Installation) -> None:
    p = running.nats.prefix
    stream = (await running.nats.call(f"STREAM.INFO.{p}-tasks"))["config"]
    await running.nats.call(f"STREAM.UPDATE.{p}-tasks", **{**stream, "max_age": 3_600_000_000_000})
    await running.nats.call(f"CONSUMER.DELETE.{p}-tasks.upscale")

    findings = [finding async for finding in examine(running.settings)]

    texts = [finding.text for finding in findings if finding.check == "layout"]
    assert texts == [f"stream {p}-tasks differs: max_age 3600000000000 -> 0", "consumer upscale is missing"]


async def test_a_pool_that_was_asked_for_must_have_a_queue(running: Installation) -> None:
    findings = [finding async for finding in examine(running.settings, ["flux"])]

    assert [finding.text for finding in findings if finding.verdict is Verdict.PROBLEM] == [
        "consumer denoise-flux is missing"
    ]


async def test_a_missing_bucket_is_named_with_its_variable(running: Installation) -> None:
    found = await running.found(s3=running.s3(results_bucket="not-there"))

    finding = found["results store"]
    assert finding.verdict is Verdict.PROBLEM
    assert "bucket not-there" in finding.text
    assert "VITASCOPE_S3_RESULTS_BUCKET" in finding.remedy
    assert found["frames store"].verdict is Verdict.OK


async def test_wrong_keys_are_told_without_showing_them(running: Installation) -> None:
    found = await running.found(s3=running.s3(secret_key=SecretStr("my-wrong-secret")))

    assert "the signature is wrong" in found["frames store"].text
    assert "VITASCOPE_S3_ACCESS_KEY" in found["frames store"].remedy
    assert "my-wrong-secret" not in str(found)


async def test_a_wrong_password_is_told_without_showing_it(installation: Installation, tmp_path: Path) -> None:
    with NatsServer(tmp_path, user="vitascope", password="right") as server:
        settings = NatsSettings(url=server.url, user="vitascope", password=SecretStr("my-wrong-password"))
        found = await installation.found(nats=settings)

    assert "refuses us" in found["broker"].text
    assert "VITASCOPE_NATS_USER" in found["broker"].remedy
    assert "my-wrong-password" not in str(found)


async def test_tasks_that_nobody_takes_are_a_problem_and_an_idle_pool_is_none(running: Installation) -> None:
    await NatsKeyValue(running.nats, "workers").delete("denoiser.host-1-denoise")
    idle = await running.found()
    await NatsBus(running.nats).publish(Task("video_1", StageName.DENOISE, "wan"))
    waiting = await running.found()

    assert idle["queue denoise-wan"].verdict is Verdict.WARNING
    assert waiting["queue denoise-wan"].verdict is Verdict.PROBLEM
    assert waiting["queue denoise-wan"].text == "0 workers, 1 task waiting, 0 in flight; serves studio/wan"


async def test_links_are_fetched_as_clients_would(running: Installation) -> None:
    signed = await running.found(s3=running.s3(results_delivery=Delivery.PRESIGNED))
    elsewhere = running.s3(results_delivery=Delivery.PRESIGNED, results_public_endpoint="http://127.0.0.1:9")
    unreachable = await running.found(s3=elsewhere)
    public = running.s3(
        results_delivery=Delivery.PUBLIC,
        results_public_url=f"{running.settings.s3.endpoint}/{running.s3().results_bucket}",
    )
    private = await running.found(s3=public)

    assert signed["result links"].verdict is Verdict.OK
    assert unreachable["result links"].verdict is Verdict.WARNING
    assert private["result links"].verdict is Verdict.PROBLEM
    assert "RESULTS_PUBLIC_URL" in private["result links"].remedy


@pytest.mark.parametrize(("skew_s", "verdict"), [(0.0, Verdict.OK), (4.9, Verdict.OK), (61.0, Verdict.WARNING)])
def test_clocks_that_differ_are_told(skew_s: float, verdict: Verdict) -> None:
    assert clock_finding("broker clock", "the broker's", skew_s).verdict is verdict


async def test_the_command_reports_for_people_and_for_machines(
    running: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3 = running.settings.s3
    variables = {
        "VITASCOPE_NATS_URL": running.settings.nats.url,
        "VITASCOPE_NATS_PREFIX": running.nats.prefix,
        "VITASCOPE_S3_ENDPOINT": s3.endpoint,
        "VITASCOPE_S3_ACCESS_KEY": s3.access_key,
        "VITASCOPE_S3_SECRET_KEY": s3.secret_key.get_secret_value(),
        "VITASCOPE_S3_FRAMES_BUCKET": s3.frames_bucket,
        "VITASCOPE_S3_RESULTS_BUCKET": s3.results_bucket,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    well = await asyncio.to_thread(doctor.main, [])
    lines = capsys.readouterr().out
    ill = await asyncio.to_thread(doctor.main, ["--json", "--pool", "flux"])
    report = json.loads(capsys.readouterr().out)

    assert well == 0
    assert all(line.split()[0] in ("ok", "skipped") for line in lines.splitlines())
    assert s3.secret_key.get_secret_value() not in lines
    assert (ill, report["ok"]) == (1, False)
    assert {"check": "layout", "verdict": "problem", "text": "consumer denoise-flux is missing"}.items() <= next(
        finding for finding in report["findings"] if finding["check"] == "layout"
    ).items()


def test_a_setting_that_is_wrong_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITASCOPE_NATS_URL", "http://broker")

    report, code = doctor.diagnose()

    assert code == 1
    assert report.startswith("problem  settings  VITASCOPE_NATS_URL")
