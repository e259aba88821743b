"""Looks at the broker: whether it answers, is laid out as the bootstrap makes it, and who works on its queues."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vitascope_core.card import ModelCard
from vitascope_core.errors import BrokerUnavailable, InvalidSettings
from vitascope_core.plan import StageName
from vitascope_core.ports import Clock
from vitascope_core.task import ANY_POOL, Queue
from vitascope_platform.bootstrap_nats import Layout, departures
from vitascope_platform.bus_nats import NatsBus, stream_name, subject_of
from vitascope_platform.cards import Card, Cards
from vitascope_platform.findings import Finding, ok, problem, skipped, warning
from vitascope_platform.kv_nats import NatsKeyValue, bucket_stream, bucket_subject
from vitascope_platform.nats_connection import BrokerRefused, NatsConnection, NatsSettings, nats_connected

WAIT_S = 5.0
"""How long the broker may take to let us in."""
ANSWER_S = 3.0
"""How long it may take to answer."""
SKEW_S = 5.0
"""Clocks further apart than this make ages and deadlines wrong."""

_LOOK_S = 0.05
"""How often a check that takes long is looked at for something that it was refused."""
_OLDEST = (2, 11)
"""The first version that lets marks of deleted keys expire."""
_WRONG_STREAM = 10060
_BOOTSTRAP = "Run python -m vitascope_platform.bootstrap with --pool for every pool."
_AS_MONITOR = "Run it with the credentials of monitor.env, see docs/cluster.md."


async def examine_broker(
    settings: NatsSettings, clock: Clock, *, ack_wait_s: float, pools: Sequence[str] = ()
) -> AsyncIterator[Finding]:
    """Look at the broker and yield what is found.

    Args:
        settings: Where it is and who we are.
        clock: Ours, to compare.
        ack_wait_s: What the workers count on.
        pools: Pools that must be there, beside those that are found.
    """
    hasty = settings.model_copy(
        update={"start_timeout_s": WAIT_S, "request_timeout_s": min(ANSWER_S, settings.request_timeout_s)}
    )
    try:
        async with nats_connected(hasty, "doctor") as connection:
            examination = _Examination(connection, settings, clock, ack_wait_s, pools)
            async for finding in examination.findings():
                yield finding
    except BrokerUnavailable as error:
        yield problem("broker", str(error), "Start nats-server there, or set VITASCOPE_NATS_URL.")
    except InvalidSettings as error:
        remedy = "Look at VITASCOPE_NATS_USER, _PASSWORD, _TOKEN, _CREDS_FILE, _NKEY_SEED_FILE and _TLS_CA_FILE."
        yield problem("broker", str(error), remedy)


@dataclass(frozen=True, slots=True)
class _Examination:
    connection: NatsConnection
    settings: NatsSettings
    clock: Clock
    ack_wait_s: float
    pools: Sequence[str]

    async def findings(self) -> AsyncIterator[Finding]:
        yield self._greeting()
        jetstream = await self._guarded("jetstream", self._jetstream)
        for finding in jetstream:
            yield finding
        if any("JetStream is off" in finding.text for finding in jetstream):
            return
        layout = await self._guarded("layout", self._layout)
        for finding in layout:
            yield finding
        if any(re.match("stream .* is missing", finding.text) for finding in layout):
            yield skipped("records, tasks, workers", "not looked at before the bootstrap has run")
            return
        for check, work in (("records", self._round_trip), ("tasks", self._publishing), ("workers", self._workers)):
            for finding in await self._guarded(check, work):
                yield finding

    async def _guarded(self, check: str, work: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
        """Return what a check finds; what it could not find out is a finding too."""
        self.connection.refusals.clear()
        working = asyncio.ensure_future(work())
        # What our rights do not allow is never answered, so that is not waited for.
        while not (await asyncio.wait({working}, timeout=_LOOK_S))[0] and not self.connection.refusals:
            pass
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            if check == "tasks":
                return [skipped(check, "publishing is not checked: these credentials may not do it")]
            return [warning(check, "not known: these credentials may not look", _AS_MONITOR)]
        try:
            return working.result()
        except BrokerUnavailable as error:
            missing = "10059" in str(error) or "has the bootstrap run" in str(error)
            return [problem(check, str(error), _BOOTSTRAP if missing else "Look at the broker's log.")]

    def _greeting(self) -> Finding:
        version = str(self.connection.client.connected_server_version)
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
        user = f" as {self.settings.user}" if self.settings.user else ""
        text = f"{self.settings.url} lets us in{user}, nats-server {version}"
        if numbers < _OLDEST:
            return problem("broker", text, "Use version 2.11 or newer.")
        return ok("broker", text)

    async def _jetstream(self) -> list[Finding]:
        try:
            info = await self.connection.call("INFO")
        except BrokerRefused as error:
            return [problem("jetstream", f"JetStream is off: {error}", "Enable it for this account.")]
        except BrokerUnavailable as error:
            if "nobody listens" not in str(error):
                raise
            return [problem("jetstream", "JetStream is off", "Add a jetstream block to nats-server's configuration.")]
        text = f"{info.get('streams', 0)} streams, {info.get('storage', 0) / 2**20:.1f} MiB on disk"
        limit = info.get("limits", {}).get("max_storage", -1)
        if 0 < limit < info.get("storage", 0) * 1.1:
            return [
                problem("jetstream", f"{text} of {limit / 2**20:.1f} MiB allowed", "Give the account more storage.")
            ]
        return [ok("jetstream", text)]

    async def _layout(self) -> list[Finding]:
        try:
            served = await self._served_pools()
        except BrokerRefused as error:
            return [problem("layout", f"stream {stream_name(self._prefix)} is missing: {error}", _BOOTSTRAP)]
        layout = Layout(tuple(dict.fromkeys([*served, *self.pools])), ack_wait_s=self.ack_wait_s)
        found = await departures(self.connection, layout)
        if found:
            return [problem("layout", text, _BOOTSTRAP) for text in found]
        names = ", ".join(layout.pools)
        if not names:
            return [warning("layout", "the bootstrap has run, but for no pool", _BOOTSTRAP)]
        return [ok("layout", f"stream, consumers and buckets are as the bootstrap makes them; pools: {names}")]

    async def _served_pools(self) -> list[str]:
        names: list[str] = []
        while True:
            answer = await self.connection.call(f"CONSUMER.NAMES.{stream_name(self._prefix)}", offset=len(names))
            page = answer.get("consumers") or []
            names += page
            if not page or len(names) >= int(answer.get("total", 0)):
                break
        before = f"{StageName.DENOISE}-"
        return sorted(name.removeprefix(before) for name in names if name.startswith(before))

    async def _round_trip(self) -> list[Finding]:
        """Write, read and delete a key that only doctors have, and look at the time the broker gave it."""
        bucket, key, content = NatsKeyValue(self.connection, "workers"), f"doctor.{secrets.token_hex(8)}", b"{}"
        before = self.clock.now_ns()
        await bucket.put(key, content)
        after = self.clock.now_ns()
        entry = await bucket.get(key)
        answer = await self.connection.call(
            f"STREAM.MSG.GET.{bucket_stream(self._prefix, 'workers')}",
            last_by_subj=bucket_subject(self._prefix, "workers", key),
        )
        await bucket.delete(key)
        gone = await bucket.get(key)
        if entry is None or entry.value != content or gone is not None:
            return [problem("records", "a key did not come back as it was written", "Look at the broker's log.")]
        return [ok("records", "a key was written, read and deleted"), self._clocks(answer, before, after)]

    def _clocks(self, answer: Mapping[str, Any], before_ns: int, after_ns: int) -> Finding:
        # Nanoseconds are more than datetime takes; whole seconds are enough.
        stored = datetime.strptime(str(answer["message"]["time"])[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        skew_s = max(before_ns / 1e9 - stored.timestamp() - 1, stored.timestamp() - after_ns / 1e9, 0.0)
        return clock_finding("broker clock", "the broker's", skew_s)

    async def _publishing(self) -> list[Finding]:
        """Offer a task that the stream refuses, so that no worker ever sees it."""
        subject = subject_of(self._prefix, StageName.UPLOAD, ANY_POOL, "doctor")
        try:
            await self.connection.store(subject, b"", {"Nats-Expected-Stream": "doctor"})
        except BrokerRefused as error:
            if error.number == _WRONG_STREAM:
                return [ok("tasks", "the stream listens; nothing was put into it")]
            return [problem("tasks", str(error), _BOOTSTRAP)]
        return [problem("tasks", "the stream took a task that it should refuse", "Look at the broker's version.")]

    async def _workers(self) -> list[Finding]:
        cards = await Cards(NatsKeyValue(self.connection, "cards")).all()
        entries = await NatsKeyValue(self.connection, "workers").entries("")
        present = [found for entry in entries if (found := _present(entry.value or b"")) is not None]
        findings = [_service("gateway", present)]
        if not any(isinstance(card, ModelCard) for card in cards):
            findings.append(warning("cards", "no pool has ever shown a model", "Start a denoiser."))
        queues = [_queue_of(card) for card in cards]
        queues += [Queue(StageName.DENOISE, pool) for pool in await self._served_pools()]
        queues += [Queue(stage) for stage in StageName if stage is not StageName.DENOISE]
        shown = {queue: card for card, queue in zip(cards, queues, strict=False)}
        for queue in dict.fromkeys(queues):
            findings += await self._queue(queue, shown.get(queue), present)
        return findings

    async def _queue(self, queue: Queue, card: Card | None, present: Sequence[Mapping[str, Any]]) -> list[Finding]:
        check = f"queue {queue}"
        pool = "" if queue.pool == ANY_POOL else queue.pool
        count = sum(1 for each in present if each.get("stage") == queue.stage and each.get("pool", "") == pool)
        try:
            depth = await NatsBus(self.connection).depth(queue)
        except BrokerRefused:
            return [problem(check, "a card is shown for it, but there is no such queue", _BOOTSTRAP)]
        text = f"{_plural(count, 'worker')}, {_plural(depth.waiting, 'task')} waiting, {depth.in_flight} in flight"
        text += f"; serves {card.id}" if isinstance(card, ModelCard) else ""
        if count:
            return [ok(check, text)]
        if depth.waiting or depth.in_flight:
            return [problem(check, text, "Start a worker for it, or look why those that run are not connected.")]
        if card is None and queue.stage not in (StageName.INGEST, StageName.UPLOAD):
            return []  # Nobody offers it, so nobody asks for it.
        return [warning(check, text, "Jobs for it wait until a worker is started.")]

    @property
    def _prefix(self) -> str:
        return self.connection.prefix


def clock_finding(check: str, whose: str, skew_s: float) -> Finding:
    """Return what a difference between our clock and another means."""
    if skew_s <= SKEW_S:
        return ok(check, f"ours and {whose} agree within {SKEW_S:g} s")
    return warning(check, f"ours and {whose} are {skew_s:.0f} s apart", "Let both follow an NTP server.")


def _service(name: str, present: Sequence[Mapping[str, Any]]) -> Finding:
    count = sum(1 for each in present if each.get("service") == name)
    text = f"{_plural(count, name)} present"
    return ok(name, text) if count else warning(name, text, f"Start a {name}.")


def _present(value: bytes) -> dict[str, Any] | None:
    """Return what a process shows; another version may show more or less, and a doctor shows nothing."""
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("service") else None


def _queue_of(card: Card) -> Queue:
    return Queue(StageName.DENOISE, card.pool) if isinstance(card, ModelCard) else Queue(card.stage)


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
