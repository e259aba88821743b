"""A service's settings: one line that names the variable, before anything is begun."""

from __future__ import annotations

import pytest

from vitascope_core.errors import InvalidSettings
from vitascope_platform.environment import ServiceSettings, read_settings
from vitascope_platform.service import MISCONFIGURED, run_service

pytestmark = pytest.mark.usefixtures("environment")


def test_an_empty_environment_is_enough() -> None:
    settings = read_settings(ServiceSettings)

    assert (settings.health.port, settings.log.level, settings.worker.concurrency) == (8081, "info", 2)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("VITASCOPE_WORKER_CONCURRENCY", "many", "VITASCOPE_WORKER_CONCURRENCY: Input should be a valid integer"),
        ("VITASCOPE_HEALTH_PORT", "99999", "VITASCOPE_HEALTH_PORT: .* less than or equal to 65535"),
        ("VITASCOPE_WORKER_HEARTBEAT_S", "20", r"VITASCOPE_WORKER_\*: heartbeat_s=20 must be at most a third"),
        ("VITASCOPE_WORKER_CONCURENCY", "3", "VITASCOPE_WORKER_CONCURENCY; did you mean VITASCOPE_WORKER_CONCURRENCY?"),
        ("VITASCOPE_NATS_URL", "http://x", "VITASCOPE_NATS_URL: must be nats://"),
        ("VITASCOPE_LOG_FORMAT", "xml", "VITASCOPE_LOG_FORMAT: Input should be 'text' or 'json'"),
    ],
)
def test_what_is_wrong_is_named(environment: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    environment.setenv(variable, value)

    with pytest.raises(InvalidSettings, match=message):
        read_settings(ServiceSettings)


def test_variables_that_kubernetes_makes_are_not_ours(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("VITASCOPE_NATS_SERVICE_HOST", "10.0.0.1")
    environment.setenv("VITASCOPE_NATS_PORT", "tcp://10.0.0.1:4222")
    environment.setenv("VITASCOPE_NATS_PORT_4222_TCP_ADDR", "10.0.0.1")

    read_settings(ServiceSettings)


def test_a_misconfigured_service_says_one_line_and_exits_with_2(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("VITASCOPE_NATS_PASSWORD", "hunter2")

    async def serve(*_: object) -> None:
        raise AssertionError("nothing may be begun")

    assert run_service("uploader", ServiceSettings, serve) == MISCONFIGURED
    assert capsys.readouterr().err == "vitascope-uploader: error: VITASCOPE_NATS_*: password is set without user\n"
