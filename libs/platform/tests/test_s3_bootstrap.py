from __future__ import annotations

import secrets

import pytest
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from vitascope_core.errors import InvalidSettings, StoreUnavailable
from vitascope_platform.bootstrap_s3 import bootstrap_s3
from vitascope_platform.s3_settings import S3Settings


def settings_for(server, **changes) -> S3Settings:
    name = secrets.token_hex(4)
    keys = {"endpoint": server.endpoint, "access_key": server.access_key, "secret_key": server.secret_key}
    buckets = {"frames_bucket": f"frames-{name}", "results_bucket": f"results-{name}", "result_prefix": "studio"}
    return S3Settings(**{**keys, **buckets, **changes})


def rules(server, bucket) -> dict[str, tuple]:
    found = server.client().get_bucket_lifecycle(bucket)
    return {
        rule.rule_id: (
            rule.rule_filter.prefix,
            rule.expiration and rule.expiration.days,
            rule.abort_incomplete_multipart_upload and rule.abort_incomplete_multipart_upload.days_after_initiation,
        )
        for rule in found.rules
    }


async def test_buckets_and_rules_are_made_once(s3) -> None:
    settings = settings_for(s3)
    made = await bootstrap_s3(settings, deadline_s=3 * 86_400)

    assert [line.rpartition(": ")[2] for line in made] == [
        "created",
        "lifecycle rule vitascope-frames-expire set",
        "lifecycle rule vitascope-frames-parts set",
        "lifecycle rule vitascope-frames-checks set",
        "created",
        "lifecycle rule vitascope-results-parts set",
        "lifecycle rule vitascope-results-checks set",
    ]
    assert all(settings.frames_bucket in line for line in made[:4])
    assert rules(s3, settings.frames_bucket) == {
        "vitascope-frames-expire": ("jobs/", 4, None),
        "vitascope-frames-parts": ("jobs/", None, 1),
        "vitascope-frames-checks": ("vitascope-check/", 1, None),
    }
    assert rules(s3, settings.results_bucket) == {
        "vitascope-results-parts": ("studio/", None, 1),
        "vitascope-results-checks": ("studio/vitascope-check/", 1, None),
    }
    assert await bootstrap_s3(settings, deadline_s=3 * 86_400) == []


async def test_a_changed_deadline_changes_its_rule_and_nobody_elses(s3) -> None:
    settings = settings_for(s3)
    await bootstrap_s3(settings)
    theirs = Rule(ENABLED, rule_filter=Filter(prefix="x/"), rule_id="theirs", expiration=Expiration(days=9))
    s3.client().set_bucket_lifecycle(settings.frames_bucket, LifecycleConfig([theirs]))

    assert await bootstrap_s3(settings, deadline_s=5 * 86_400) != []
    assert rules(s3, settings.frames_bucket) == {
        "theirs": ("x/", 9, None),
        "vitascope-frames-expire": ("jobs/", 6, None),
        "vitascope-frames-parts": ("jobs/", None, 1),
        "vitascope-frames-checks": ("vitascope-check/", 1, None),
    }


async def test_wrong_credentials_make_nothing(s3) -> None:
    with pytest.raises(InvalidSettings, match="cannot prepare the frames bucket"):
        await bootstrap_s3(settings_for(s3, secret_key="wrong"))


async def test_a_store_that_is_away_is_away(s3) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await bootstrap_s3(settings_for(s3, endpoint="127.0.0.1:1"))
