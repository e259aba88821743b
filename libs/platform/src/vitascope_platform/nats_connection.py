"""The connection to NATS: settings, reconnecting for ever, and the border where its errors become ours."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vitascope_core.errors import BrokerUnavailable, InvalidSettings

log = logging.getLogger(__name__)

STATUS = "Status"
"""Header under which nats-py puts the number of a message that the server itself sent."""

_TOO_LARGE = 10054
"""JetStream's number for a message above the stream's limit: a fault of ours, not an outage."""
_RETRY_LOG_S = 10.0
"""Attempts to connect are made twice a second and told this often."""


class NatsSettings(BaseSettings):
    """Where the broker is and who we are. Environment: ``VITASCOPE_NATS_*``."""

    model_config = SettingsConfigDict(env_prefix="VITASCOPE_NATS_", frozen=True, extra="forbid")

    url: str = "nats://127.0.0.1:4222"
    """Servers, separated by commas: ``nats://host:port`` or ``tls://host:port``."""
    prefix: str = Field(default="vs", pattern="^[a-z0-9-]{1,40}$")
    """First token of every name, so that several installations can share a broker."""
    user: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    creds_file: FilePath | None = None
    """JWT and seed as ``nsc`` writes them."""
    nkey_seed_file: FilePath | None = None
    tls_ca_file: FilePath | None = None
    """Certificates that the server's must descend from; the system's if not set."""
    connect_timeout_s: float = Field(default=5.0, gt=0)
    request_timeout_s: float = Field(default=5.0, gt=0)
    """How long an answer is waited for before its outcome is unknown, seconds."""
    start_timeout_s: float = Field(default=0.0, ge=0)
    """How long a process waits for the broker when it starts, seconds; 0 for as long as it takes."""

    @field_validator("url")
    @classmethod
    def _servers_are_addresses(cls, url: str) -> str:
        for server in url.split(","):
            parts = urlsplit(server.strip())
            # Here and not in the message: a password in the address would end up in every log line about it.
            if parts.username or parts.password:
                raise ValueError("the address must not hold credentials; use user and password, or token")
            # A port that is no number raises here.
            if parts.scheme not in ("nats", "tls") or not parts.hostname or parts.path.strip("/") or parts.port == 0:
                raise ValueError(f"must be nats://host:port or tls://host:port, separated by commas, got {server!r}")
        return url

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        ways = {
            "user": self.user,
            "token": self.token.get_secret_value(),
            "creds_file": self.creds_file,
            "nkey_seed_file": self.nkey_seed_file,
        }
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise ValueError(f"set only one of {', '.join(given)}")
        if self.password.get_secret_value() and not self.user:
            raise ValueError("password is set without user")
        return self

    @property
    def servers(self) -> list[str]:
        """The addresses one by one."""
        return [server.strip() for server in self.url.split(",")]


class BrokerRefused(BrokerUnavailable):
    """JetStream answered with an error of its own.

    Attributes:
        number: JetStream's ``err_code``; stable between versions.
    """

    def __init__(self, what: str, number: int, description: str) -> None:
        super().__init__(f"{what}: {description} ({number})")
        self.number = number


class NatsConnection:
    """A connection that lives until it is closed, whatever the broker does. Made by `nats_connected`.

    Attributes:
        refusals: The last things that our rights on the broker did not allow; a request among them is never answered.
    """

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client = Client()
        self._closing = False
        self._listeners: set[Callable[[], None]] = set()
        self._limits: set[asyncio.Timeout] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = float("-inf")
        self.refusals: deque[str] = deque(maxlen=32)
        self.prefix = settings.prefix
        self.request_timeout_s = settings.request_timeout_s

    @property
    def client(self) -> Client:
        """The client of the moment; another one after the broker closed the connection for good."""
        return self._client

    @property
    def connected(self) -> bool:
        """Whether the broker can be spoken to now."""
        return bool(self._client.is_connected)

    @property
    def closing(self) -> bool:
        """Whether its owner has ended the connection."""
        return self._closing

    def on_reconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` whenever a lost connection is back; returns what ends that."""
        self._listeners.add(callback)
        return lambda: self._listeners.discard(callback)

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError in the block after so many seconds, or as soon as the connection is lost.

        What was sent over a connection that is lost is never answered. What is sent while there is none waits for the
        next, so the block may begin then.
        """
        async with asyncio.timeout(seconds) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what must be done but need not be waited for; `close` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None) -> Msg:
        """Send a message and return the answer.

        Raises:
            BrokerUnavailable: There was none in time, or nobody listens; the outcome is unknown.
        """
        cancels = _cancels()
        with at_border(subject):
            async with self.within(self.request_timeout_s):
                answer = await self._client.request(
                    subject, payload, timeout=self.request_timeout_s, headers=dict(headers) if headers else None
                )
        if _cancels() > cancels:
            # Python 3.11's wait_for, which the client uses, loses a cancel that comes together with the answer.
            raise asyncio.CancelledError
        return answer

    async def store(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> int:
        """Publish into the stream that listens to ``subject`` and return the message's sequence number.

        Raises:
            BrokerRefused: The stream does not take it.
            BrokerUnavailable: The outcome is unknown.
        """
        return int(_checked(subject, await self.ask(subject, payload, headers))["seq"])

    async def call(self, method: str, **body: Any) -> dict[str, Any]:
        """Call a method of JetStream's API, such as ``STREAM.INFO.vs-tasks``.

        Raises:
            BrokerRefused: It answered with an error.
            BrokerUnavailable: It did not answer.
        """
        return _checked(method, await self.ask(f"$JS.API.{method}", json.dumps(body).encode() if body else b""))

    async def open(self) -> None:
        """Connect, waiting for the broker as long as the settings say.

        Raises:
            InvalidSettings: The broker refuses our credentials, or its certificate is not to be trusted.
            BrokerUnavailable: It was not there in time.
        """
        await self._connect(self._settings.start_timeout_s or None)

    async def close(self) -> None:
        """Finish what is under way in the background and disconnect."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _close(self._client)

    async def _connect(self, timeout_s: float | None) -> None:
        client, refusal = Client(), asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            if not refusal.done() and not connecting.done() and _is_refusal(error):
                refusal.set_result(error)
            else:
                self._log_error(error)

        # A client that never came to be used has lost nothing; whoever tried it goes on trying.
        async def on_disconnected() -> None:
            if client is self._client:
                await self._on_disconnected()

        async def on_closed() -> None:
            if client is self._client:
                await self._on_closed()

        calls: dict[str, Any] = {"error_cb": on_error, "disconnected_cb": on_disconnected, "closed_cb": on_closed}
        # nats-py tries for ever; its error callback is the only place that tells why it has not come through.
        connecting = asyncio.ensure_future(client.connect(**self._options(), **calls))
        try:
            await asyncio.wait({connecting, refusal}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if refusal.done():
                raise InvalidSettings(f"the broker at {self._settings.url} refuses us: {refusal.result()}")
            if not connecting.done():
                raise BrokerUnavailable(f"no broker at {self._settings.url} within {timeout_s:g} s")
            _raise_if_failed(connecting, self._settings.url)
        except BaseException:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await _close(client)
            raise
        self._client = client
        log.info("connected to the broker", extra={"url": self._settings.url, "prefix": self.prefix})

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "servers": settings.servers,
            "name": f"{self._name}@{socket.gethostname()}",
            # One inbox name per user, or kind of client, so that the broker can forbid reading those of others.
            "inbox_prefix": f"_INBOX_{re.sub('[^A-Za-z0-9_-]', '-', settings.user or self._name)}",
            "user": settings.user or None,
            "password": settings.password.get_secret_value() or None,
            "token": settings.token.get_secret_value() or None,
            "user_credentials": str(settings.creds_file) if settings.creds_file else None,
            "nkeys_seed": str(settings.nkey_seed_file) if settings.nkey_seed_file else None,
            "tls": ssl.create_default_context(cafile=settings.tls_ca_file) if settings.tls_ca_file else None,
            "connect_timeout": settings.connect_timeout_s,
            "max_reconnect_attempts": -1,
            # Jitter: a hundred workers do not come back in the same instant.
            "reconnect_time_wait": random.uniform(0.3, 0.7),
            "ping_interval": 10,
            "reconnected_cb": self._on_reconnected,
        }

    async def _on_disconnected(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._limits):
            if not limit.expired():
                limit.reschedule(now)
        if not self._closing:
            log.warning("connection to the broker lost", extra={"url": self._settings.url})

    async def _on_reconnected(self) -> None:
        log.info("connection to the broker restored", extra={"url": self._settings.url})
        for listener in tuple(self._listeners):
            listener()

    async def _on_closed(self) -> None:
        # nats-py gives up for good on errors such as an expired login. We do not.
        if not self._closing:
            self.in_background(self._reopen())

    async def _reopen(self) -> None:
        while True:
            try:
                await self._connect(None)
            except (InvalidSettings, BrokerUnavailable) as error:
                log.error("the broker does not take us back", extra={"error": str(error)})
                await asyncio.sleep(_RETRY_LOG_S)
            else:
                return await self._on_reconnected()

    def _log_error(self, error: Exception) -> None:
        refused = "permissions violation" in str(error).lower()
        if refused:
            self.refusals.append(str(error))
        if refused or isinstance(error, nats.errors.SlowConsumerError):
            log.error("broker error", extra={"error": str(error)})
        elif time.monotonic() - self._told >= _RETRY_LOG_S:
            self._told = time.monotonic()
            text = str(error) or type(error).__name__
            log.warning("waiting for the broker", extra={"url": self._settings.url, "error": text})


@asynccontextmanager
async def nats_connected(settings: NatsSettings, name: str) -> AsyncIterator[NatsConnection]:
    """Connect as ``name`` for the time of the block, waiting for the broker as long as the settings say.

    Raises:
        InvalidSettings: The broker refuses our credentials, or its certificate is not to be trusted.
        BrokerUnavailable: It was not there in time.
    """
    connection = NatsConnection(settings, name)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def at_border(what: str) -> Iterator[None]:
    """Turn what nats-py raises into BrokerUnavailable.

    Raises:
        ValueError: The message is larger than the broker takes: to repeat it would not help.
    """
    try:
        yield
    except nats.errors.MaxPayloadError as error:
        raise ValueError(f"{what}: the message is larger than the broker takes") from error
    except nats.errors.NoRespondersError as error:
        raise BrokerUnavailable(f"{what}: nobody listens; has the bootstrap run?") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnavailable(f"{what}: {str(error) or type(error).__name__}") from error


def _cancels() -> int:
    """Return how often the running task was told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _checked(what: str, answer: Msg) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(answer.data)
    if error := content.get("error"):
        number, description = int(error.get("err_code", 0)), str(error.get("description", ""))
        if number == _TOO_LARGE:
            raise ValueError(f"{what}: {description}")
        raise BrokerRefused(what, number, description)
    return content


def _is_refusal(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, ssl.SSLCertVerificationError) or "authorization" in text or "authentication" in text


def _raise_if_failed(connecting: asyncio.Future[None], url: str) -> None:
    try:
        with at_border(f"connecting to {url}"):
            connecting.result()
    except BrokerUnavailable:
        raise
    except Exception as error:
        # It does not reach the broker: a seed that is none, or the package ``nkeys`` missing.
        raise InvalidSettings(f"cannot log in to {url}: {str(error) or type(error).__name__}") from error


async def _close(client: Client) -> None:
    # Whatever it still wanted to say: the connection is over.
    with _ignoring_nats_errors():
        await client.close()


@contextmanager
def _ignoring_nats_errors() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError, AssertionError) as error:
        log.debug("while disconnecting", extra={"error": str(error)})
