"""Objects in a bucket of any store that speaks S3."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import urllib3
from minio import Minio
from minio.credentials.providers import AWSConfigProvider, ChainedProvider, EnvAWSProvider, IamAwsProvider, Provider
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from vitascope_core.errors import InvalidSettings, ObjectMissing, StoreUnavailable
from vitascope_core.job import new_token
from vitascope_core.ports import Buffer, ObjectInfo
from vitascope_platform.s3_settings import S3Location

T = TypeVar("T")
log = logging.getLogger(__name__)

THREADS = 16
"""Calls under way at once; the others wait."""

_MEBIBYTE = 1024 * 1024
_PIECE = _MEBIBYTE
_ONE_PART = 64 * _MEBIBYTE
"""Files up to here are one request; larger ones go in parts of 16 MiB, so that memory stays bounded."""
_PART = 16 * _MEBIBYTE

_TYPES = {
    "mp4": "video/mp4",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "json": "application/json",
}

_REFUSALS = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "access is denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the signature is wrong: the secret key does not belong to the access key",
    "AuthorizationHeaderMalformed": "the region is wrong",
    "PermanentRedirect": "the bucket is in another region",
    "Redirect": "the bucket is in another region",
    "ExpiredToken": "the credentials have expired",
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ too much",
}


class StoreRefused(StoreUnavailable):
    """The store answers, but not to us: bucket, credentials or rights are wrong, and waiting alone mends nothing.

    Attributes:
        reason: S3's code, "" where there is none.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class BucketMissing(InvalidSettings):
    """The bucket of the settings does not exist, or not yet."""


class _Body(Protocol):
    """An open answer."""

    def read(self, amt: int | None = None) -> bytes: ...
    def close(self) -> None: ...
    def release_conn(self) -> None: ...


class S3Store:
    """`vitascope_core.ports.ObjectStore` in one bucket. Calls run in threads of its own.

    A store that hangs holds a call for at most twice the read timeout: connections that break are tried again twice,
    silence once, errors of the server twice. Who wants to wait longer asks again (`vitascope_platform.patience`).
    """

    def __init__(self, location: S3Location, *, threads: int = THREADS) -> None:
        self._location = location
        self._bucket = location.bucket
        self._http = _pool(location, threads)
        self._client = client(location, self._http)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"s3-{location.name}")

    @property
    def location(self) -> S3Location:
        """Where the objects are."""
        return self._location

    async def put(self, key: str, data: Buffer) -> None:
        """See `vitascope_core.ports.ObjectStore.put`. One request, so that a crash leaves no parts behind."""

        def call() -> None:
            self._put(key, io.BytesIO(data), len(memoryview(data).cast("B")))

        await self._run(key, call)

    async def put_file(self, key: str, path: Path) -> None:
        """See `vitascope_core.ports.ObjectStore.put_file`. The file stays."""

        def call() -> None:
            with path.open("rb") as file:
                self._put(key, file, path.stat().st_size)

        await self._run(key, call)

    def _put(self, key: str, data: BinaryIO, size: int) -> None:
        kind = _TYPES.get(key.rpartition(".")[2], "application/octet-stream")
        one = isinstance(data, io.BytesIO) or size <= _ONE_PART
        part = max(5 * _MEBIBYTE, size) if one else max(_PART, -(-size // 9000))  # S3 allows 10,000 parts
        self._client.put_object(
            self._bucket, key, data, size, content_type=kind, part_size=part, num_parallel_uploads=2
        )

    async def get(self, key: str) -> bytes:
        """See `vitascope_core.ports.ObjectStore.get`."""

        def call() -> bytes:
            response = self._client.get_object(self._bucket, key)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

        return await self._run(key, call)

    async def stat(self, key: str) -> ObjectInfo | None:
        """See `vitascope_core.ports.ObjectStore.stat`."""

        def call() -> ObjectInfo | None:
            try:
                return ObjectInfo(key, self._client.stat_object(self._bucket, key).size or 0)
            except S3Error as error:
                # An answer to HEAD has no body: a bucket that is not there looks like an object that is not.
                if error.code == "NoSuchKey" and self._client.bucket_exists(self._bucket):
                    return None
                raise

        try:
            return await self._run(key, call)
        except ObjectMissing as error:
            if isinstance(error.__cause__, S3Error):
                raise _refused(self._location, "NoSuchBucket") from error
            return None

    async def read(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See `vitascope_core.ports.ObjectStore.read`. At most one piece of a mebibyte is held."""
        if length == 0:
            if await self.stat(key) is None:
                raise ObjectMissing(key)
            return
        response = await self._opened(key, start, length)
        if response is None:
            return
        try:
            while piece := await self._run(key, lambda: response.read(_PIECE)):
                yield piece
        finally:
            # Not here: closing waits for a read that is still under way.
            self._later(lambda: _closed(response))

    async def _opened(self, key: str, start: int, length: int | None) -> _Body | None:
        def call() -> _Body | None:
            try:
                return self._client.get_object(self._bucket, key, offset=start, length=length or 0)
            except S3Error as error:
                if error.code == "InvalidRange":
                    return None
                raise

        opening = self._submit(key, call)
        try:
            return await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """See `vitascope_core.ports.ObjectStore.list`."""

        def call() -> list[ObjectInfo]:
            found = self._client.list_objects(self._bucket, prefix, recursive=True)
            infos = [ObjectInfo(item.object_name, item.size or 0) for item in found if item.object_name is not None]
            return sorted((info for info in infos if not info.key.endswith("/")), key=lambda info: info.key)

        return await self._run("", call)

    async def delete(self, key: str) -> None:
        """See `vitascope_core.ports.ObjectStore.delete`."""
        await self._run(key, lambda: self._client.remove_object(self._bucket, key))

    async def delete_prefix(self, prefix: str) -> int:
        """See `vitascope_core.ports.ObjectStore.delete_prefix`. A thousand objects a request."""
        found = await self.list(prefix)

        def call() -> None:
            for error in self._client.remove_objects(self._bucket, [DeleteObject(info.key) for info in found]):
                if error.code != "NoSuchKey":
                    raise _answered(self._location, error.code or "", 0)

        if found:
            await self._run("", call)
        return len(found)

    async def check(self) -> None:
        """Put, get and delete a small object under the location's prefix.

        Raises:
            BucketMissing: There is no such bucket: the bootstrap has not run, or the name is wrong.
            InvalidSettings: The credentials are wrong or have too few rights.
            StoreUnavailable: The store does not answer, or has no room; later it may.
        """
        key, content = f"{self._location.prefix}vitascope-check/{new_token()}", b"vitascope"
        doing = "write"
        try:
            await self.put(key, content)
            doing = "read"
            if await self.get(key) != content:
                raise StoreUnavailable(f"{_place(self._location)} returned something else than what was stored")
            doing = "delete"
            await self.delete(key)
        except StoreRefused as error:
            kind = BucketMissing if error.reason == "NoSuchBucket" else InvalidSettings
            raise kind(f"cannot {doing}: {error}. {remedy(self._location, error)}") from error
        except ObjectMissing as error:
            raise StoreUnavailable(f"{_place(self._location)} lost what was just stored") from error

    def close(self) -> None:
        """Drop the connections. Calls that have not begun are cancelled; those under way end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    async def _run(self, key: str, call: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._submit(key, call))

    def _submit(self, key: str, call: Callable[[], T]) -> Future[T]:
        if key and any(part in ("", ".", "..") or "\0" in part for part in key.split("/")):
            raise ObjectMissing(key)

        def guarded() -> T:
            try:
                return call()
            except StoreUnavailable:
                raise
            except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise translated(error, self._location, key) from error

        return self._threads.submit(guarded)

    def _later(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # closed: the connections are gone anyway
            self._threads.submit(call)


def client(location: S3Location, http: urllib3.PoolManager) -> Minio:
    """Return a client for a location. It connects to nothing before it is used."""
    made = Minio(
        location.host,
        access_key=location.access_key or None,
        secret_key=location.secret_key.get_secret_value() or None,
        secure=location.secure,
        region=location.region,
        http_client=http,
        credentials=None if location.access_key else _found_credentials(),
    )
    if location.path_style:
        made.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    elif location.path_style is False:
        made.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return made


def translated(error: Exception, location: S3Location, key: str = "") -> ObjectMissing | StoreUnavailable:
    """Return what an error of the client means to callers. No message repeats what a request carried."""
    if isinstance(error, S3Error):
        if error.code == "NoSuchKey":
            return ObjectMissing(key)
        return _answered(location, error.code or "", error.response.status)
    if isinstance(error, ServerError):
        return _answered(location, "", error.status_code)
    if isinstance(error, InvalidResponseError):
        return StoreUnavailable(f"{_place(location)} does not speak S3")
    if isinstance(error, ValueError):
        # The client's own checks, and the search for credentials that found none.
        return StoreRefused(f"{_place(location)}: {str(error)[:200]}")
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.SSLError):
        return StoreRefused(f"{_place(location)}: no trusted encrypted connection ({str(cause)[:200]})")
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return StoreUnavailable(f"{_place(location)}: the host is not known")
    if isinstance(cause, (urllib3.exceptions.NewConnectionError, ConnectionError)):
        return StoreUnavailable(f"{_place(location)} cannot be reached")
    if isinstance(cause, (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ConnectTimeoutError)):
        return StoreUnavailable(f"{_place(location)} did not answer in time")
    if isinstance(error, OSError):
        return StoreUnavailable(f"{key}: {error.strerror or type(error).__name__}")
    return StoreUnavailable(f"{_place(location)}: the connection broke ({type(cause).__name__})")


def _answered(location: S3Location, code: str, status: int) -> StoreUnavailable:
    if code in _REFUSALS or status == 403:
        return _refused(location, code)
    if status >= 500:
        # SeaweedFS answers InternalError when no volume has room.
        return StoreUnavailable(f"{_place(location)} failed with {status} {code}: it may be full or starting")
    return StoreUnavailable(f"{_place(location)} answered {status or ''} {code}".replace("  ", " "))


def _refused(location: S3Location, code: str) -> StoreRefused:
    return StoreRefused(f"{_place(location)}: {_REFUSALS.get(code, f'refused with {code}')}", code)


def _place(location: S3Location) -> str:
    return f"bucket {location.bucket} at {location.endpoint}"


def remedy(location: S3Location, error: StoreRefused) -> str:
    """Return what may be done about a refusal: a sentence without its full stop."""
    results = "RESULTS_" if location.name == "results" else ""
    if error.reason == "NoSuchBucket":
        bucket = f"VITASCOPE_S3_{location.name.upper()}_BUCKET"
        return f"Create it with python -m vitascope_platform.bootstrap, or set {bucket}"
    names = [f"VITASCOPE_S3_{results}{name}" for name in ("ACCESS_KEY", "SECRET_KEY", "REGION")]
    return f"Look at {', '.join(names)} and the rights of the key"


def _pool(location: S3Location, threads: int) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=location.connect_s, read=location.read_s),
        maxsize=threads,
        # A redirect would carry a signature for another host: better an error that names the region.
        retries=urllib3.Retry(
            total=3,
            connect=2,
            read=1,
            status=2,
            redirect=0,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=frozenset({"GET", "HEAD", "PUT", "DELETE"}),
            raise_on_status=False,
            raise_on_redirect=False,
        ),
    )


def _found_credentials() -> Provider:
    quick = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1.0, read=5.0), retries=urllib3.Retry(1))
    return ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider(http_client=quick)])


def _closed(response: _Body) -> None:
    response.close()
    response.release_conn()


def _close_unwanted(opening: Future[_Body | None]) -> None:
    if not opening.cancelled() and opening.exception() is None and (response := opening.result()) is not None:
        _closed(response)
