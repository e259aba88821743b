"""Looks at a store as services use it: a real object, its range, its deletion, and links to results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from email.utils import parsedate_to_datetime

import urllib3

from vitascope_core.errors import ObjectMissing, StoreUnavailable
from vitascope_core.job import new_token
from vitascope_core.ports import Clock
from vitascope_platform.broker_examination import clock_finding
from vitascope_platform.findings import Finding, ok, problem, skipped, warning
from vitascope_platform.links import result_links
from vitascope_platform.s3_settings import Delivery, S3Location, S3Settings
from vitascope_platform.store_s3 import S3Store, StoreRefused, remedy

_CONTENT = b"0123456789"


async def examine_stores(settings: S3Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Look at both stores and yield what is found. Nothing is left behind."""
    for location in (settings.frames, settings.results):
        with closing(S3Store(location, threads=2)) as store:
            async for finding in _examine(location, store, settings):
                yield finding
        skew = await asyncio.to_thread(_skew_s, location, clock)
        if skew is not None:
            yield clock_finding(f"{location.name} clock", "the store's", skew)


async def _examine(location: S3Location, store: S3Store, settings: S3Settings) -> AsyncIterator[Finding]:
    check, place = f"{location.name} store", f"bucket {location.bucket} at {location.endpoint}"
    key = f"{location.prefix}vitascope-check/{new_token()}"
    doing = "write"
    try:
        await store.put(key, _CONTENT)
        doing = "read"
        whole = await store.get(key)
        doing = "read a range"
        part = b"".join([piece async for piece in store.read(key, 3, 4)])
        links = [await _link(settings, key)] if location.name == "results" else []
        doing = "delete"
        await store.delete(key)
    except StoreRefused as error:
        yield problem(check, f"cannot {doing}: {error}", f"{remedy(location, error)}.")
    except (StoreUnavailable, ObjectMissing) as error:
        where = f"VITASCOPE_S3_{'RESULTS_' if location.name == 'results' else ''}ENDPOINT"
        yield problem(check, f"cannot {doing}: {error}", f"Start the store, or set {where}; look whether it is full.")
    else:
        if (whole, part) != (_CONTENT, _CONTENT[3:7]):
            yield problem(check, f"{place} returned something else than what was stored", "Use another store.")
        else:
            yield ok(check, f"{place}: an object was written, read, read in part and deleted")
        for finding in links:
            yield finding


async def _link(settings: S3Settings, key: str) -> Finding:
    if settings.results_delivery is Delivery.GATEWAY:
        return skipped("result links", "none are given out: gateways stream results")
    kind = f"{settings.results_delivery} link"
    url = result_links(settings).link(key, "text/plain", "check.txt") or ""
    try:
        answer = await asyncio.to_thread(_fetched, url, settings)
    except urllib3.exceptions.HTTPError as error:
        why = f"a {kind} cannot be fetched from here ({type(error).__name__})"
        return warning("result links", why, f"Look at {_variable(settings)}; clients may be able to reach it.")
    if answer == (200, _CONTENT):
        return ok("result links", f"a {kind} gave the object")
    return problem("result links", f"a {kind} was answered with {answer[0]}", f"Look at {_variable(settings)}.")


def _variable(settings: S3Settings) -> str:
    public = settings.results_delivery is Delivery.PUBLIC
    return f"VITASCOPE_S3_RESULTS_PUBLIC_{'URL' if public else 'ENDPOINT'}"


def _fetched(url: str, settings: S3Settings) -> tuple[int, bytes]:
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, timeout=settings.connect_timeout_s + 2, retries=False)
        return answer.status, answer.data


def _skew_s(location: S3Location, clock: Clock) -> float | None:
    """Return how far the store's clock is from ours by the date of an answer, or None if it tells none."""
    try:
        with urllib3.PoolManager() as pool:
            before = clock.now_ns() / 1e9
            # Unsigned: even a refusal is dated.
            answer = pool.request("HEAD", f"{location.endpoint}/", timeout=location.connect_s, retries=False)
            after = clock.now_ns() / 1e9
        told = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
    except (urllib3.exceptions.HTTPError, ValueError):
        return None
    return max(before - told - 1, told - after, 0.0)
