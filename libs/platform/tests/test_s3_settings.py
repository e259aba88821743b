from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from vitascope_platform.s3_settings import Delivery, S3Settings

SECRET = "hush-hush"
SEEDS = {
    "SGLANG_CLOUD_STORAGE_TYPE": "s3",
    "SGLANG_S3_BUCKET_NAME": "renders",
    "SGLANG_S3_ENDPOINT_URL": "https://minio.test:9000",
    "SGLANG_S3_REGION_NAME": "eu-west-1",
    "SGLANG_S3_ACCESS_KEY_ID": "seed-key",
    "SGLANG_S3_SECRET_ACCESS_KEY": SECRET,
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("VITASCOPE_", "SGLANG_")):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch):
    def read(**variables: str) -> S3Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name if name.isupper() else f"VITASCOPE_S3_{name.upper()}", value)
        return S3Settings()

    return read


def test_results_lie_where_the_frames_are_unless_told_otherwise(settings) -> None:
    found = settings(endpoint="s3.test:9000", region="x", access_key="k", secret_key=SECRET, path_style="true")

    for location in (found.frames, found.results):
        assert (location.endpoint, location.region, location.access_key) == ("http://s3.test:9000", "x", "k")
        assert (location.secret_key.get_secret_value(), location.path_style, location.secure) == (SECRET, True, False)
    assert (found.frames.bucket, found.results.bucket) == ("vitascope-frames", "vitascope-results")


def test_results_may_lie_elsewhere(settings) -> None:
    found = settings(
        access_key="k",
        secret_key="s",
        results_endpoint="https://eu.test/",
        results_region="eu",
        results_access_key="rk",
        results_secret_key="rs",
        results_bucket="renders",
        result_prefix="/studio//"[:-1],
    )

    assert (found.results.endpoint, found.results.secure, found.results.region) == ("https://eu.test", True, "eu")
    assert (found.results.access_key, found.results.secret_key.get_secret_value()) == ("rk", "rs")
    assert (found.results.bucket, found.results.prefix) == ("renders", "studio/")
    assert (found.frames.access_key, found.frames.region, found.frames.prefix) == ("k", "us-east-1", "")


def test_the_seeds_variables_say_where_results_go(settings) -> None:
    found = settings(**SEEDS, access_key="k", secret_key="s")

    assert (found.results.bucket, found.results.endpoint) == ("renders", "https://minio.test:9000")
    assert (found.results.region, found.results.access_key) == ("eu-west-1", "seed-key")
    assert found.results.secret_key.get_secret_value() == SECRET
    assert (found.frames.endpoint, found.frames.access_key) == ("http://127.0.0.1:8333", "k")


def test_vitascopes_variables_win_over_the_seeds(settings) -> None:
    found = settings(**SEEDS, results_bucket="mine", results_access_key="rk", results_secret_key="rs")

    assert (found.results.bucket, found.results.endpoint) == ("mine", "https://minio.test:9000")
    assert (found.results.access_key, found.results.secret_key.get_secret_value()) == ("rk", "rs")


def test_the_seeds_without_an_endpoint_mean_amazon(settings) -> None:
    only = {"SGLANG_CLOUD_STORAGE_TYPE": "S3", "SGLANG_S3_BUCKET_NAME": "renders"}

    assert settings(**only).results.endpoint == "https://s3.us-east-1.amazonaws.com"
    assert settings(SGLANG_S3_REGION_NAME="eu-west-1").results.endpoint == "https://s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SGLANG_CLOUD_STORAGE_TYPE": "gcs"}, "SGLANG_CLOUD_STORAGE_TYPE must be s3"),
        ({"SGLANG_S3_BUCKET_NAME": "renders"}, "SGLANG_S3_BUCKET_NAME is set without SGLANG_CLOUD_STORAGE_TYPE=s3"),
        ({"SGLANG_S3_SECRET_ACCESS_KEY": SECRET}, "SGLANG_S3_SECRET_ACCESS_KEY is set without"),
        ({"SGLANG_CLOUD_STORAGE_TYPE": "s3"}, "needs SGLANG_S3_BUCKET_NAME"),
        ({**SEEDS, "SGLANG_S3_ACCESS_KEY_ID": ""}, "results_access_key and results_secret_key go together"),
        ({**SEEDS, "results_access_key": "rk"}, "results_access_key and results_secret_key go together"),
        ({"secret_key": SECRET}, "access_key and secret_key go together"),
        ({"access_key": "k"}, "access_key and secret_key go together"),
        ({"results_secret_key": SECRET}, "results_access_key and results_secret_key go together"),
        ({"results_delivery": "public"}, "results_delivery=public needs results_public_url"),
        ({"results_public_url": "https://cdn.test"}, "only with results_delivery=public"),
        ({"results_public_endpoint": "https://cdn.test"}, "only with results_delivery=presigned"),
        ({"results_delivery": "mail"}, "'gateway', 'presigned' or 'public'"),
        ({"results_delivery": "public", "results_public_url": "cdn.test"}, "must be an http or https URL"),
        ({"presign_ttl_s": "604801"}, "less than or equal to 604800"),
        ({"endpoint": "ftp://x"}, "must be host:port"),
        ({"endpoint": "http://x/path"}, "must be host:port"),
        ({"endpoint": f"http://user:{SECRET}@x"}, "must be host:port"),
        ({"endpoint": "x:port"}, "must be host:port"),
        ({"frames_bucket": "Upper"}, "must be 3 to 63"),
        ({"frames_bucket": "10.0.0.1"}, "must be 3 to 63"),
        ({"results_bucket": "a..b"}, "must be 3 to 63"),
        ({"results_bucket": "vitascope-frames"}, "must be two buckets"),
        ({"result_prefix": "a/../b"}, "without . and .."),
        ({"result_prefix": "a//b"}, "single slashes"),
        ({"result_prefix": "a b"}, "single slashes"),
    ],
)
def test_what_cannot_work_is_refused_without_telling_the_secret(settings, variables, message) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**variables)

    assert message in str(refused.value)
    assert SECRET not in str(refused.value) + repr(refused.value)


def test_secrets_are_not_shown(settings) -> None:
    found = settings(**SEEDS, access_key="k", secret_key=SECRET)

    assert SECRET not in f"{found!r} {found} {found.frames!r} {found.results!r} {found.model_dump_json()}"


def test_delivery_is_by_the_gateway_unless_told_otherwise(settings) -> None:
    assert settings().results_delivery is Delivery.GATEWAY
