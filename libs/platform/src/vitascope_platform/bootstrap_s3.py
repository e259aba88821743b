"""Makes the buckets and their rules. Run twice it changes nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import MinioException, S3Error
from minio.lifecycleconfig import AbortIncompleteMultipartUpload, Expiration, LifecycleConfig, Rule

from vitascope_core.errors import InvalidSettings
from vitascope_platform.s3_settings import S3Location, S3Settings
from vitascope_platform.store_s3 import StoreRefused, client, translated

_DAY_S = 24 * 3600
_CHECKS = "vitascope-check/"
_EXISTS = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")


async def bootstrap_s3(settings: S3Settings, *, deadline_s: int = _DAY_S) -> list[str]:
    """Make the buckets that are missing and set their lifecycle rules; return a line for each change.

    Frames expire a day or more after the deadline of every job that could read them: a net under the workers and the
    reaper, which delete them as soon as a job ends. SeaweedFS takes the rules but applies them only where its ``admin``
    and ``worker`` processes run. Rules with other names are kept.

    Args:
        settings: Where the buckets are.
        deadline_s: The longest deadline of a job, seconds.

    Raises:
        InvalidSettings: The credentials are wrong or may not do this.
        StoreUnavailable: The store is away.
    """
    days = math.ceil((deadline_s + 3600) / _DAY_S)
    frames = [
        _expire("vitascope-frames-expire", "jobs/", days),
        _abort("vitascope-frames-parts", "jobs/"),
        # What a process leaves that is killed while it tries the store.
        _expire("vitascope-frames-checks", _CHECKS, 1),
    ]
    results = [
        _abort("vitascope-results-parts", settings.result_prefix),
        _expire("vitascope-results-checks", f"{settings.result_prefix}{_CHECKS}", 1),
    ]
    lines = await asyncio.to_thread(_ensure, settings.frames, frames)
    return lines + await asyncio.to_thread(_ensure, settings.results, results)


def _ensure(location: S3Location, rules: Sequence[Rule]) -> list[str]:
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=location.connect_s, read=location.read_s), retries=urllib3.Retry(2, redirect=0)
    )
    store = client(location, http)
    place = f"bucket {location.bucket} at {location.endpoint}"
    try:
        made = [f"{place}: created"] if _make_bucket(store, location) else []
        return made + [f"{place}: {line}" for line in _set_rules(store, location.bucket, rules)]
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        meant = translated(error, location)
        if isinstance(meant, StoreRefused):
            raise InvalidSettings(f"cannot prepare the {location.name} bucket: {meant}") from error
        raise meant from error
    finally:
        http.clear()


def _make_bucket(store: Minio, location: S3Location) -> bool:
    if store.bucket_exists(location.bucket):
        return False
    try:
        store.make_bucket(location.bucket, location=location.region)
    except S3Error as error:
        # Another bootstrap was faster. A bucket of somebody else shows when it is used.
        if error.code in _EXISTS:
            return False
        raise
    return True


def _set_rules(store: Minio, bucket: str, rules: Sequence[Rule]) -> list[str]:
    try:
        config = store.get_bucket_lifecycle(bucket)
        standing = list(config.rules) if config is not None else []
        if {_meaning(rule) for rule in rules} <= {_meaning(rule) for rule in standing}:
            return []
        ours = {rule.rule_id for rule in rules}
        kept = [rule for rule in standing if rule.rule_id not in ours]
        store.set_bucket_lifecycle(bucket, LifecycleConfig([*kept, *rules]))
    except S3Error as error:
        if error.code in ("NotImplemented", "MethodNotAllowed") or error.response.status == 501:
            return ["the store has no lifecycle rules; what crashed uploads leave stays until somebody deletes it"]
        raise
    return [f"lifecycle rule {rule.rule_id} set" for rule in rules]


def _meaning(rule: Rule) -> tuple[object, ...]:
    return (
        rule.rule_id,
        rule.status,
        rule.rule_filter.prefix or "" if rule.rule_filter else "",
        rule.expiration.days if rule.expiration else None,
        rule.abort_incomplete_multipart_upload.days_after_initiation
        if rule.abort_incomplete_multipart_upload
        else None,
    )


def _expire(name: str, prefix: str, days: int) -> Rule:
    return Rule(ENABLED, rule_filter=Filter(prefix=prefix), rule_id=name, expiration=Expiration(days=days))


def _abort(name: str, prefix: str) -> Rule:
    after = AbortIncompleteMultipartUpload(days_after_initiation=1)
    return Rule(ENABLED, rule_filter=Filter(prefix=prefix), rule_id=name, abort_incomplete_multipart_upload=after)
