"""Key-value buckets on NATS JetStream (DESIGN section 6).

The buckets have the layout of NATS's own key-value stores (ADR-8), so that its tools read them. The client is ours
because nats-py's takes an expired key for one without a value, and its watchers may stay deaf for long after an outage.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from vitascope_core.errors import BrokerUnavailable, Conflict
from vitascope_core.ports import Entry
from vitascope_platform.nats_connection import STATUS, BrokerRefused, NatsConnection, at_border

log = logging.getLogger(__name__)

MARKER_TTL_S = 3600
"""How long a deleted key leaves a mark for watchers; far more than `OUTAGE_S`, so that none misses a deletion."""

OUTAGE_S = 300.0
"""How long a watcher rides out an outage before it gives up, seconds: like a worker (DESIGN section 7)."""

_NO_MESSAGE = 10037
_WRONG_SEQUENCE = (10071, 10164)
_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"
_MARKER = "Nats-Marker-Reason"
_NANOSECONDS = 1_000_000_000


def bucket_stream(prefix: str, name: str) -> str:
    """Return the stream that a bucket is stored in."""
    return f"KV_{prefix}-{name}"


def bucket_subject(prefix: str, name: str, key: str) -> str:
    """Return the subject of a bucket's key."""
    return f"$KV.{prefix}-{name}.{key}"


class NatsKeyValue:
    """`vitascope_core.ports.KeyValue` over a JetStream bucket that the bootstrap has made.

    Reads are answered by the stream's leader, so that they see every acknowledged write.

    Args:
        connection: To the broker.
        name: The bucket's, without the installation's prefix.
        heartbeat_s: How often the server says that a watcher is still known to it, seconds.
    """

    def __init__(self, connection: NatsConnection, name: str, *, heartbeat_s: float = 5.0) -> None:
        self._connection = connection
        self._stream = bucket_stream(connection.prefix, name)
        self._root = bucket_subject(connection.prefix, name, "")
        self._heartbeat_s = heartbeat_s

    async def get(self, key: str) -> Entry | None:
        """See `vitascope_core.ports.KeyValue.get`."""
        found = await self._last(key)
        return None if found is None or found.value is None else found

    async def create(self, key: str, value: bytes) -> int:
        """See `vitascope_core.ports.KeyValue.create`."""
        revision = 0
        while True:
            try:
                return await self._store(key, value, revision)
            except Conflict:
                # A deleted key still has its mark, which is what is replaced then.
                found = await self._last(key)
                if found is not None and found.value is not None:
                    raise Conflict(f"{key} exists") from None
                revision = 0 if found is None else found.revision

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """See `vitascope_core.ports.KeyValue.update`."""
        return await self._store(key, value, revision)

    async def put(self, key: str, value: bytes) -> int:
        """See `vitascope_core.ports.KeyValue.put`."""
        return await self._connection.store(self._root + key, value, {})

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.KeyValue.delete`."""
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub", "Nats-TTL": str(MARKER_TTL_S)}
        await self._connection.store(self._root + key, b"", headers)

    async def entries(self, prefix: str) -> list[Entry]:
        """See `vitascope_core.ports.KeyValue.entries`."""
        if prefix and not prefix.endswith("."):
            entry = await self.get(prefix)
            return [] if entry is None else [entry]
        found = []
        async with self.watch(prefix) as entries:
            async for entry in entries:
                if entry is None:
                    break
                found.append(entry)
        return sorted(found, key=lambda entry: entry.key)

    @asynccontextmanager
    async def watch(self, prefix: str) -> AsyncIterator[AsyncIterator[Entry | None]]:
        """See `vitascope_core.ports.KeyValue.watch`.

        Outages are ridden out for `OUTAGE_S` seconds: every change made meanwhile is then told.

        Raises:
            BrokerUnavailable: While iterating: the broker was away for longer, or lost the bucket's past. Watch anew.
        """
        subject = self._root + (f"{prefix}>" if not prefix or prefix.endswith(".") else prefix)
        watcher = _Watcher(self._connection, self._stream, subject, self._root, self._heartbeat_s)
        forget = self._connection.on_reconnect(watcher.renew)
        try:
            yield watcher.entries()
        finally:
            forget()
            await watcher.close()

    async def _store(self, key: str, value: bytes, revision: int) -> int:
        try:
            return await self._connection.store(self._root + key, value, {_EXPECTED: str(revision)})
        except BrokerRefused as error:
            if error.number not in _WRONG_SEQUENCE:
                raise
            raise Conflict(f"{key} is not at revision {revision}") from error

    async def _last(self, key: str) -> Entry | None:
        """Return a key's last message; its value is None if that is the mark of a deletion."""
        try:
            answer = await self._connection.call(f"STREAM.MSG.GET.{self._stream}", last_by_subj=self._root + key)
        except BrokerRefused as error:
            if error.number != _NO_MESSAGE:
                raise
            return None
        message: dict[str, Any] = answer["message"]
        headers = base64.b64decode(message.get("hdrs") or "").decode("utf-8", "replace")
        value = None if _is_mark(headers) else base64.b64decode(message.get("data") or "")
        return Entry(key, value, int(message["seq"]))


class _Signal(Enum):
    """What a watcher hears that is not an entry."""

    RENEW = "the server may have forgotten us, or we missed something"
    IDLE = "the server has nothing more for now"


class _Watcher:
    """One consumer after the other, each going on behind the last entry that was seen.

    A bucket is a log, so nothing is missed between two consumers: what changed meanwhile has a higher sequence number.
    """

    def __init__(self, connection: NatsConnection, stream: str, subject: str, root: str, heartbeat_s: float) -> None:
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._root = root
        self._heartbeat_s = heartbeat_s
        self._heard: asyncio.Queue[Msg | _Signal] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._delivered = 0
        self._last = 0

    def renew(self) -> None:
        """Have the consumer replaced: a reconnected server may have lost it."""
        self._heard.put_nowait(_Signal.RENEW)

    async def close(self) -> None:
        """Stop listening; the server removes a consumer that nobody listens to."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            try:
                await subscription.unsubscribe()
            except (nats.errors.Error, OSError) as error:
                log.debug("watcher not closed", extra={"error": str(error)})

    async def entries(self) -> AsyncIterator[Entry | None]:
        """Yield what `NatsKeyValue.watch` says."""
        told_all = False
        pending = await self._subscribe()
        while True:
            if pending == 0 and not told_all:
                told_all = True
                yield None
            event = await self._next()
            if event is _Signal.RENEW:
                pending = await self._resubscribe()
            elif isinstance(event, Msg):
                entry, pending = self._entry(event)
                if told_all or entry.value is not None:
                    yield entry
            else:
                pending = 0

    def _entry(self, message: Msg) -> tuple[Entry, int]:
        """Return a message's entry, and how many more were waiting when it was sent."""
        meta = message.metadata
        self._delivered, self._last = meta.sequence.consumer, meta.sequence.stream
        value = None if _is_mark(message.headers or {}) else message.data
        return Entry(message.subject.removeprefix(self._root), value, self._last), meta.num_pending

    async def _next(self) -> Msg | _Signal:
        """Return the next message in order, or what must be done instead."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s * 2.5):
                    message = await self._heard.get()
            except TimeoutError:
                return _Signal.RENEW
            if isinstance(message, _Signal):
                return message
            headers = message.headers or {}
            if STATUS not in headers:
                return message if message.metadata.sequence.consumer == self._delivered + 1 else _Signal.RENEW
            # The server sends no more than we take: it waits for the answer to a mark in the stream of messages.
            if answer_to := message.reply or headers.get("Nats-Consumer-Stalled"):
                with at_border(self._stream):
                    await self._connection.client.publish(answer_to)
            elif int(headers.get("Nats-Last-Consumer", self._delivered)) != self._delivered:
                return _Signal.RENEW
            else:
                return _Signal.IDLE

    async def _resubscribe(self) -> int:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + OUTAGE_S
        while True:
            try:
                info = await self._connection.call(f"STREAM.INFO.{self._stream}")
                if int(info["state"]["last_seq"]) < self._last:
                    raise _PastLost(f"{self._stream}: the broker lost entries that it had told us")
                return await self._subscribe()
            except _PastLost:
                raise
            except BrokerUnavailable as error:
                if loop.time() > give_up or self._connection.closing:
                    raise
                log.warning("watch interrupted", extra={"bucket": self._stream, "error": str(error)})
                await asyncio.sleep(1.0)

    async def _subscribe(self) -> int:
        """Begin behind what was seen, and return how many entries wait."""
        await self.close()
        # A fresh queue: what the last consumer still sends is not ours any more.
        heard: asyncio.Queue[Msg | _Signal] = asyncio.Queue()
        self._heard = heard
        self._delivered = 0

        async def hear(message: Msg) -> None:
            heard.put_nowait(message)

        client = self._connection.client
        with at_border(self._stream):
            inbox = client.new_inbox()
            self._subscription = await client.subscribe(inbox, cb=hear)
        start: dict[str, object] = {"deliver_policy": "last_per_subject"}
        if self._last:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1}
        config = {
            "deliver_subject": inbox,
            "filter_subject": self._subject,
            "ack_policy": "none",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(self._heartbeat_s * _NANOSECONDS),
            "inactive_threshold": 5 * _NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
            **start,
        }
        answer = await self._connection.call(f"CONSUMER.CREATE.{self._stream}", stream_name=self._stream, config=config)
        return int(answer["num_pending"])


class _PastLost(BrokerUnavailable):
    """The bucket's log is shorter than what was seen of it."""


def _is_mark(headers: str | Mapping[str, str]) -> bool:
    return _OPERATION in headers or _MARKER in headers
