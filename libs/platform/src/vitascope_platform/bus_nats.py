"""The work queue on NATS JetStream (DESIGN sections 6 and 7).

Requests for tasks are made here rather than through nats-py's ``fetch``: that one leaves a request behind on the server
when it is cancelled, which then swallows a task for a whole ack wait, and it cannot tell an idle queue from a dead
broker. Workers only use consumers; the bootstrap makes them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Self

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from vitascope_core.errors import BrokerUnavailable, InvalidSettings
from vitascope_core.ports import Delivery, Depth
from vitascope_core.task import Queue, Task
from vitascope_platform.nats_connection import STATUS, NatsConnection, at_border
from vitascope_platform.records import BadRecord, from_bytes, to_bytes

log = logging.getLogger(__name__)

MESSAGE_ID = "Nats-Msg-Id"
NANOSECONDS = 1_000_000_000

_MISSED = 3
"""Heartbeats missed before the server is taken to have forgotten a request."""
_LATE_S = 1.0
"""What a heartbeat may at least be late on a busy machine."""


def stream_name(prefix: str) -> str:
    """Return the stream that holds all tasks."""
    return f"{prefix}-tasks"


def subject_of(prefix: str, stage: str, pool: str, job_id: str) -> str:
    """Return the subject of a task; any token may be ``*``."""
    return f"{prefix}.tasks.{stage}.{pool}.{job_id}"


class NatsBus:
    """`vitascope_core.ports.Bus` over a JetStream work queue.

    Args:
        connection: To a broker on which the bootstrap has run, or will: until then calls raise BrokerUnavailable.
        ack_wait_s: Silence that the workers count on having, seconds. A queue with less is refused: its tasks would be
            handed out again while they are worked on.
        heartbeat_s: How often the server says that a waiting request is still known to it, seconds.
    """

    def __init__(self, connection: NatsConnection, *, ack_wait_s: float = 30.0, heartbeat_s: float = 1.0) -> None:
        self._connection = connection
        self._ack_wait_s = ack_wait_s
        self._heartbeat_s = heartbeat_s
        self._stream = stream_name(connection.prefix)
        self._waits: dict[Queue, float] = {}

    async def publish(
        self, task: Task, *, message_id: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """See `vitascope_core.ports.Bus.publish`. Never blocks for room: the gateway bounds the queues."""
        subject = subject_of(self._connection.prefix, task.stage, task.pool, task.job_id)
        name = message_id or task.message_id
        await self._connection.store(subject, to_bytes(task), {**(headers or {}), MESSAGE_ID: name})

    async def fetch(self, queue: Queue, limit: int, timeout_s: float) -> list[Delivery]:
        """See `vitascope_core.ports.Bus.fetch`. Cancelled, it gives back what had arrived.

        Raises:
            BrokerUnavailable: The broker is away, or the bootstrap has not made this queue yet.
            InvalidSettings: The queue's ack wait is shorter than what the workers count on.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        ack_wait_s = await self._ack_wait(queue)
        while True:
            # What is ready comes at once and as much as is wanted; a request that waits is for one task, because the
            # rest of it would stay open behind the first.
            messages = await self._pull(queue, limit, 0.0)
            left = deadline - loop.time()
            if not messages and left > 0:
                messages = await self._pull(queue, 1, left)
            until = loop.time() + ack_wait_s
            found = [delivery for message in messages if (delivery := await self._delivery(message, until, ack_wait_s))]
            if found or loop.time() >= deadline:
                return list(found)

    async def purge(self, job_id: str) -> int:
        """See `vitascope_core.ports.Bus.purge`."""
        answer = await self._connection.call(f"STREAM.PURGE.{self._stream}", filter=self._all_of(job_id))
        return int(answer["purged"])

    async def count(self, job_id: str) -> int:
        """See `vitascope_core.ports.Bus.count`."""
        return sum((await self._subjects(self._all_of(job_id))).values())

    async def jobs(self) -> set[str]:
        """See `vitascope_core.ports.Bus.jobs`."""
        return {subject.rpartition(".")[2] for subject in await self._subjects(self._all_of("*"))}

    async def depth(self, queue: Queue) -> Depth:
        """See `vitascope_core.ports.Bus.depth`.

        What was handed out counts as in flight until it is acknowledged or handed out again, even if its ack wait has
        passed or it was given back with a delay: the server does not tell these apart. What was published a moment ago
        may not count yet (1 of 3,000 on a busy machine).
        """
        info = await self._connection.call(f"CONSUMER.INFO.{self._stream}.{queue}")
        return Depth(int(info["num_pending"]), int(info["num_ack_pending"]))

    def _all_of(self, job_id: str) -> str:
        return subject_of(self._connection.prefix, "*", "*", job_id)

    async def _subjects(self, pattern: str) -> dict[str, int]:
        """Return the subjects that have messages, with their numbers; the server tells them in pages."""
        found: dict[str, int] = {}
        while True:
            answer = await self._connection.call(
                f"STREAM.INFO.{self._stream}", subjects_filter=pattern, offset=len(found)
            )
            page: dict[str, int] = answer["state"].get("subjects") or {}
            found |= page
            if not page or len(found) >= int(answer.get("total", 0)):
                return found

    async def _ack_wait(self, queue: Queue) -> float:
        """Return the queue's real ack wait, read once."""
        if queue not in self._waits:
            info = await self._connection.call(f"CONSUMER.INFO.{self._stream}.{queue}")
            found = float(info["config"]["ack_wait"]) / NANOSECONDS
            if found < self._ack_wait_s:
                raise InvalidSettings(
                    f"ack_wait_s is {self._ack_wait_s:g} but the queue {queue} has {found:g}: "
                    "run the bootstrap with the workers' settings"
                )
            self._waits[queue] = found
        return self._waits[queue]

    async def _pull(self, queue: Queue, batch: int, wait_s: float) -> list[Msg]:
        async with _Pull(self._connection, f"{self._stream}.{queue}", self._heartbeat_s) as pull:
            return await pull.take(batch, wait_s)

    async def _delivery(self, message: Msg, until: float, ack_wait_s: float) -> NatsDelivery | None:
        try:
            task = from_bytes(Task, message.data)
        except BadRecord as error:
            # It can never be worked on. Whoever follows the job finds it without messages and acts.
            log.error("task cannot be read", extra={"subject": message.subject, "error": str(error)})
            await self._connection.ask(message.reply, b"+TERM cannot be read")
            return None
        return NatsDelivery(self._connection, message, task, until, ack_wait_s)


class NatsDelivery:
    """`vitascope_core.ports.Delivery` of a `NatsBus`.

    Each call waits for the server's answer, so that what follows it sees its effect.
    """

    def __init__(self, connection: NatsConnection, message: Msg, task: Task, until: float, ack_wait_s: float) -> None:
        self._connection = connection
        self._message = message
        self._until = until
        self._ack_wait_s = ack_wait_s
        self._copy = f"{task.message_id}/{secrets.token_hex(8)}"
        self.task = task
        self.count: int = message.metadata.num_delivered
        self.headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith("Nats-")}

    async def ack(self) -> None:
        """See `vitascope_core.ports.Delivery.ack`. Late acks count."""
        await self._say(b"")

    async def nak(self, delay_s: float = 0.0) -> None:
        """See `vitascope_core.ports.Delivery.nak`."""
        # JetStream would take a late one for the message's next delivery, and hand that out a second time.
        if self._is_mine():
            await self._say(b'-NAK {"delay": %d}' % int(delay_s * NANOSECONDS) if delay_s > 0 else b"-NAK")

    async def in_progress(self) -> None:
        """See `vitascope_core.ports.Delivery.in_progress`."""
        if self._is_mine():
            now = asyncio.get_running_loop().time()
            await self._say(b"+WPI")
            self._until = now + self._ack_wait_s

    async def requeue(self) -> None:
        """See `vitascope_core.ports.Delivery.requeue`. Repeated, it stores no second copy."""
        await self._connection.store(
            self._message.subject, self._message.data, {**self.headers, MESSAGE_ID: self._copy}
        )
        await self.ack()

    def _is_mine(self) -> bool:
        return asyncio.get_running_loop().time() < self._until

    async def _say(self, word: bytes) -> None:
        await self._connection.ask(self._message.reply, word)


class _Pull:
    """One request for tasks, with an inbox of its own that lives as long as somebody waits.

    The server hands nothing to an inbox that is gone. So a fetch that is cancelled takes no task, but for those already
    on their way: these are given back. One that the server was handing out in that very moment may reach nobody (seen
    once in some hundred tries, nats-server 2.15); it comes back by silence. Workers therefore cancel none but the last.
    """

    def __init__(self, connection: NatsConnection, consumer: str, heartbeat_s: float) -> None:
        self._connection = connection
        self._heartbeat_s = heartbeat_s
        self._consumer = consumer
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer}"
        self._inbox: asyncio.Queue[Msg] = asyncio.Queue()
        self._taken: list[Msg] = []
        self._open = False
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._subscription is None:
            return
        if kind is None and not self._open:
            await _unsubscribe(self._subscription)
        else:
            self._connection.in_background(self._give_back(self._subscription, [] if kind is None else self._taken))

    async def take(self, batch: int, wait_s: float) -> list[Msg]:
        """Return up to ``batch`` messages that are ready, or the first to come within ``wait_s`` seconds.

        Raises:
            BrokerUnavailable: No answer, or one that says that there is no such queue now.
        """
        request: dict[str, object] = {"batch": batch}
        patience_s = self._connection.request_timeout_s
        if wait_s <= 0:
            request["no_wait"] = True
        else:
            # At most half of the time, as the server demands; and a wait shorter than a beat needs none.
            beat_s = min(self._heartbeat_s, wait_s / 2.1)
            request |= {"expires": int(wait_s * NANOSECONDS), "idle_heartbeat": int(beat_s * NANOSECONDS)}
            patience_s = beat_s * _MISSED + _LATE_S
        client = self._connection.client
        with at_border(self._consumer):
            inbox = client.new_inbox()
            self._subscription = await client.subscribe(inbox, cb=self._hear)
            self._open = True
            await client.publish(self._subject, json.dumps(request).encode(), reply=inbox)
        while len(self._taken) < batch:
            try:
                async with self._connection.within(patience_s):
                    message = await self._inbox.get()
            except TimeoutError:
                if self._taken:
                    return self._taken
                raise BrokerUnavailable(f"{self._consumer}: no answer to a request for tasks") from None
            status = (message.headers or {}).get(STATUS)
            if status is None:
                self._taken.append(message)
            elif status != "100":
                self._open = False
                self._check(status, str((message.headers or {}).get("Description", "")))
                return self._taken
        self._open = False
        return self._taken

    def _check(self, status: str, description: str) -> None:
        if status in ("404", "408") or self._taken or "MaxAckPending" in description:
            return
        why = "there is no such queue; has the bootstrap run?" if status == "503" else description
        raise BrokerUnavailable(f"{self._consumer}: {why} ({status})")

    async def _hear(self, message: Msg) -> None:
        self._inbox.put_nowait(message)

    async def _give_back(self, subscription: Subscription, taken: list[Msg]) -> None:
        try:
            # After this round trip the request is gone and everything sent for it is here.
            await subscription.drain()  # type: ignore[no-untyped-call]
            late = [self._inbox.get_nowait() for _ in range(self._inbox.qsize())]
            for message in (*taken, *late):
                if message.reply and STATUS not in (message.headers or {}):
                    await self._connection.client.publish(message.reply, b"-NAK")
        except (nats.errors.Error, TimeoutError, OSError) as error:
            # The broker is away, and what it had handed out comes back by silence.
            log.debug("request not withdrawn", extra={"queue": self._consumer, "error": str(error)})
            await _unsubscribe(subscription)


async def _unsubscribe(subscription: Subscription) -> None:
    try:
        await subscription.unsubscribe()
    except (nats.errors.Error, OSError) as error:
        log.debug("inbox not closed", extra={"error": str(error)})
