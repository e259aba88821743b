"""What an installation needs on its broker: one stream of tasks, a consumer for each queue, four buckets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import StageName
from vitascope_core.task import ANY_POOL, Queue
from vitascope_platform.bus_nats import NANOSECONDS, stream_name, subject_of
from vitascope_platform.kv_nats import bucket_stream, bucket_subject
from vitascope_platform.nats_connection import BrokerRefused, NatsConnection

_NO_CONSUMER, _NO_STREAM = 10014, 10059


@dataclass(frozen=True, slots=True)
class Layout:
    """What is to be there.

    Attributes:
        pools: Slugs of the denoiser pools; queues of other pools that are there already stay.
        ack_wait_s: Silence after which a task is handed out again, seconds.
        replicas: Servers that keep a copy of everything.
        max_bytes: Bytes of waiting tasks at which publishing is refused: a fuse, not a limit to live with.
        duplicate_window_s: How long the id of a message is remembered, seconds.
        workers_ttl_s: How long a worker that fell silent is listed, seconds.
        idem_ttl_s: How long an idempotency key is remembered, seconds.
    """

    pools: Sequence[str]
    ack_wait_s: float = 30.0
    replicas: int = 1
    max_bytes: int = 1 << 30
    duplicate_window_s: float = 600.0
    workers_ttl_s: float = 30.0
    idem_ttl_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        for pool in self.pools:
            if not re.fullmatch("[a-z0-9-]{1,40}", pool) or pool == ANY_POOL:
                raise InvalidSettings(f"pool must be 1 to 40 of a-z, 0-9 and -, and not {ANY_POOL!r}; got {pool!r}")

    @property
    def queues(self) -> list[Queue]:
        """Every queue that workers take tasks from."""
        shared = [Queue(stage) for stage in StageName if stage is not StageName.DENOISE]
        return [*(Queue(StageName.DENOISE, pool) for pool in dict.fromkeys(self.pools)), *shared]


async def bootstrap_nats(connection: NatsConnection, layout: Layout) -> list[str]:
    """Make what is missing and change what differs; return a line for each, none if all was well.

    Raises:
        InvalidSettings: Something is there that cannot be changed into what is wanted. All else has been done.
        BrokerUnavailable: The broker went away; run it again.
    """
    broker, done, refused = _Broker(connection), list[str](), list[str]()
    for kind, config in _wanted(connection.prefix, layout):
        try:
            done += await (broker.stream(config) if kind == "stream" else broker.consumer(config))
        except BrokerRefused as error:
            refused.append(f"cannot change {kind} {config['name']}: {error}")
    if refused:
        raise InvalidSettings("; ".join([*refused, *done]))
    return done


async def departures(connection: NatsConnection, layout: Layout) -> list[str]:
    """Return what `bootstrap_nats` would make or change, a line for each; changes nothing.

    How many servers keep a copy and how much the broker takes is the operator's to choose, so these are not compared.

    Raises:
        BrokerUnavailable: The broker went away, or we may not look.
    """
    broker, found = _Broker(connection), list[str]()
    for kind, config in _wanted(connection.prefix, layout):
        compared = {name: value for name, value in config.items() if name not in ("num_replicas", "max_bytes")}
        standing = await broker.standing(kind, config["name"])
        if standing is None:
            found.append(f"{kind} {config['name']} is missing")
        else:
            differences = _differences(standing, compared)
            found += [f"{kind} {config['name']} differs: {', '.join(differences)}"] if differences else []
    return found


def _wanted(prefix: str, layout: Layout) -> list[tuple[str, dict[str, Any]]]:
    streams = [_tasks(prefix, layout), *_buckets(prefix, layout)]
    consumers = [_consumer(prefix, queue, layout) for queue in layout.queues]
    return [*(("stream", config) for config in streams), *(("consumer", config) for config in consumers)]


def _tasks(prefix: str, layout: Layout) -> dict[str, Any]:
    return {
        "name": stream_name(prefix),
        "subjects": [subject_of(prefix, "*", "*", "*")],
        "retention": "workqueue",
        "storage": "file",
        "discard": "new",
        "max_bytes": layout.max_bytes,
        "max_msg_size": 64 * 1024,
        # Neither number nor age: a job that was accepted is not dropped (DESIGN section 7).
        "max_msgs": -1,
        "max_age": 0,
        "duplicate_window": int(layout.duplicate_window_s * NANOSECONDS),
        "num_replicas": layout.replicas,
    }


def _buckets(prefix: str, layout: Layout) -> list[dict[str, Any]]:
    ages_s = {"jobs": 0.0, "cards": 0.0, "workers": layout.workers_ttl_s, "idem": layout.idem_ttl_s}
    return [_bucket(prefix, name, age_s, layout.replicas) for name, age_s in ages_s.items()]


def _bucket(prefix: str, name: str, age_s: float, replicas: int) -> dict[str, Any]:
    """Return a bucket as NATS's ADR-8 lays it out, but without direct reads, which replicas may answer late."""
    config: dict[str, Any] = {
        "name": bucket_stream(prefix, name),
        "subjects": [bucket_subject(prefix, name, ">")],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": int(age_s * NANOSECONDS),
        "duplicate_window": int(min(age_s or 120.0, 120.0) * NANOSECONDS),
        "num_replicas": replicas,
        "allow_rollup_hdrs": True,
        "allow_direct": False,
        "deny_delete": True,
        # Marks of deleted keys go by themselves.
        "allow_msg_ttl": True,
    }
    if age_s:
        # Watchers hear of what expires.
        config["subject_delete_marker_ttl"] = int(max(age_s, 1.0) * NANOSECONDS)
    return config


def _consumer(prefix: str, queue: Queue, layout: Layout) -> dict[str, Any]:
    return {
        "name": str(queue),
        "durable_name": str(queue),
        "filter_subject": subject_of(prefix, queue.stage, queue.pool, "*"),
        "ack_policy": "explicit",
        "ack_wait": int(layout.ack_wait_s * NANOSECONDS),
        # The worker counts, and ends the job; a message that JetStream drops would be a job nobody ends.
        "max_deliver": -1,
        # Tasks given back with a delay count here as well, so any number would one day hold up a healthy queue.
        "max_ack_pending": -1,
    }


class _Broker:
    """Makes and changes one thing at a time."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._tasks = stream_name(connection.prefix)

    async def stream(self, wanted: dict[str, Any]) -> list[str]:
        name = wanted["name"]
        found = await self.standing("stream", name)
        if found is None:
            await self._connection.call(f"STREAM.CREATE.{name}", **wanted)
            return [f"stream {name} made"]
        differences = _differences(found, wanted)
        if differences:
            # What others set beside ours, such as placement, stays.
            await self._connection.call(f"STREAM.UPDATE.{name}", **(found | wanted))
        return _changed(f"stream {name}", differences)

    async def consumer(self, wanted: dict[str, Any]) -> list[str]:
        name = wanted["name"]
        found = await self.standing("consumer", name)
        differences = None if found is None else _differences(found, wanted)
        if differences is None or differences:
            method = f"CONSUMER.CREATE.{self._tasks}.{name}.{wanted['filter_subject']}"
            config = (found or {}) | wanted
            # A retry plan overrides the ack wait, and ours has none.
            config.pop("backoff", None)
            await self._connection.call(method, stream_name=self._tasks, config=config)
        return [f"consumer {name} made"] if differences is None else _changed(f"consumer {name}", differences)

    async def standing(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the configuration of a stream or consumer as it is, or None if there is none."""
        method = f"STREAM.INFO.{name}" if kind == "stream" else f"CONSUMER.INFO.{self._tasks}.{name}"
        try:
            config: dict[str, Any] = (await self._connection.call(method))["config"]
        except BrokerRefused as error:
            # A consumer of a stream that is missing is missing too.
            if error.number != _NO_STREAM and (kind == "stream" or error.number != _NO_CONSUMER):
                raise
            return None
        return config


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what differs; the server leaves out what is zero or false."""
    changes = [
        f"{name} {found.get(name)} -> {value}"
        for name, value in wanted.items()
        if (found.get(name) or None) != (value or None)
    ]
    return [*changes, "backoff removed"] if found.get("backoff") else changes


def _changed(what: str, differences: list[str]) -> list[str]:
    return [f"{what} changed: {', '.join(differences)}"] if differences else []
