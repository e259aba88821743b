"""The health port: what it answers, and when."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

from vitascope_platform.health import Health, HealthServer, PortTaken


def answer(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_service_is_ready_once_nothing_speaks_against_it() -> None:
    health, connected = Health(), False
    health.require(lambda: None if connected else "the broker is not connected")
    with HealthServer(health, "127.0.0.1", 0) as server:
        told = [answer(server, "/readyz")]
        health.now(None)
        told.append(answer(server, "/readyz"))
        connected = True
        told.append(answer(server, "/readyz"))
        health.now("draining")
        told.append(answer(server, "/health"))

        assert [(code, json.loads(body).get("error")) for code, body in told] == [
            (503, "starting"),
            (503, "the broker is not connected"),
            (200, None),
            (503, "draining"),
        ]
        assert answer(server, "/livez")[0] == 200


def test_a_process_that_is_ill_neither_lives_nor_works() -> None:
    health = Health()
    health.now(None)
    health.require_to_live(lambda: "the board stopped following")
    with HealthServer(health, "127.0.0.1", 0) as server:
        assert answer(server, "/livez")[0] == 503
        assert answer(server, "/readyz")[0] == 503


def test_metrics_are_those_of_the_process() -> None:
    with HealthServer(Health(), "127.0.0.1", 0) as server:
        code, text = answer(server, "/metrics")

        assert code == 200
        assert "process_cpu_seconds_total" in text
        assert answer(server, "/other")[0] == 404


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with HealthServer(Health(), "127.0.0.1", 0) as first:
        second = HealthServer(Health(), "127.0.0.1", first.port)
        with pytest.raises(PortTaken, match=f"port {first.port} for health checks"):
            second.__enter__()
