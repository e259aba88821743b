"""A whole cluster on loopback: a real broker, a real store, and every service in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.cluster.nats_server import nats_server
from tools.cluster.process import STOP_S, ServiceFailed, ServiceProcess
from tools.cluster.s3_server import s3_server
from vitascope_core.plan import StageName
from vitascope_platform.access import read_env_file, write_access
from vitascope_platform.access_rights import BOOTSTRAP, MONITOR, Installation

GATEWAY, DENOISER, INTERPOLATOR, UPSCALER, UPLOADER = "gateway", "denoiser", "interpolator", "upscaler", "uploader"
TESTCARD = "testcard"

READY_S = 60.0
"""Time that services have to come up, unless told otherwise."""


@dataclass(frozen=True)
class Program:
    """A service as it is started.

    Attributes:
        module: Run as ``python -m module``.
        replicas: How many at first.
        env: Variables of this service; they win over the cluster's.
        stage: What it works at, for the rights in a secured cluster; "" for the project's own services.
    """

    module: str
    replicas: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    stage: str = ""


class Cluster:
    """Broker, store and services; started on entry, ended on exit.

    Args:
        folder: State of broker and store.
        model: What the denoisers serve: ``testcard``, ``vitascope/demo``, a folder or a Hugging Face id.
        pool: Pool of the denoisers.
        replicas: By service, where not one; of the interpolator, which needs weights, none unless named here.
        env: Variables of every service.
        service_env: Variables by service; they win over ``env``.
        extra: More services by name, for example a transform or a second pool.
        pools: Pools of ``extra``, made by the bootstrap beside ``pool``.
        gateway_port: Port of the first gateway, those of the others follow; 0 for any free ones.
        ready_s: Time that services have to come up.
        secured: Whether each service has credentials of its own, which may do only what it needs.
        heard: Called with a process's name and each line it logs, from a thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str = TESTCARD,
        pool: str = "main",
        replicas: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        service_env: Mapping[str, Mapping[str, str]] | None = None,
        extra: Mapping[str, Program] | None = None,
        pools: Sequence[str] = (),
        gateway_port: int = 0,
        ready_s: float = READY_S,
        secured: bool = False,
        heard: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._pools = (pool, *pools)
        self._env = dict(env or {})
        self._gateway_port = gateway_port
        self._ready_s = ready_s
        self._heard = heard
        self._servers = ExitStack()
        self._programs = _programs(model, pool, replicas or {}, service_env or {}, extra or {})
        self._processes: dict[str, list[ServiceProcess]] = {name: [] for name in self._programs}
        self.access = folder / "access" if secured else None
        if self.access is not None:
            workers = {name: StageName(program.stage) for name, program in self._programs.items() if program.stage}
            write_access(self.access, Installation(tuple(dict.fromkeys(self._pools)), workers=workers))
        self.nats = nats_server(folder / "nats", access=self.access)
        self.s3 = s3_server(folder / "s3", access=self.access)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when all of it is ready.

        Raises:
            ServiceFailed: A service ended or is not ready in time; everything is stopped again.
        """
        try:
            self._servers.enter_context(self.nats)
            self._servers.enter_context(self.s3)
            self.bootstrap()
            for service, program in self._programs.items():
                self._add(service, program.replicas)
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def bootstrap(self) -> None:
        """Make streams, consumers and buckets; what is there stays."""
        run_bootstrap({**self.env(), **self.credentials(BOOTSTRAP)}, self._pools, self._heard)

    def wait_ready(self, service: str | None = None) -> None:
        """Return once every running process, of one service or of all, is ready.

        Raises:
            ServiceFailed: One ended or is not ready in time.
        """
        for process in self.processes(service):
            process.wait_ready(self._ready_s)

    def stop(self) -> None:
        """End everything that was started: gateways first, so that nothing new comes in; broker and store last."""
        try:
            _end(self._processes.get(GATEWAY, ()))
            _end(process for service, all_ in self._processes.items() if service != GATEWAY for process in all_)
        finally:
            self._servers.close()

    def env(self, service: str | None = None) -> dict[str, str]:
        """Return the environment of a service; without one, that of tools that use broker and store.

        In a secured cluster tools may only look.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("VITASCOPE_")}
        own = self._programs[service].env if service else {}
        login = self.credentials(self._identity(service) if service else MONITOR)
        return {**inherited, **_DEFAULTS, **self._env, **self._servers_env(), **login, **own}

    def credentials(self, identity: str) -> dict[str, str]:
        """Return the variables with which an identity, such as "bootstrap", logs in; none if nothing is secured."""
        return {} if self.access is None else read_env_file(self.access / f"{identity}.env")

    def _identity(self, service: str) -> str:
        pool = self._programs[service].env.get("VITASCOPE_DENOISER_POOL")
        return f"{DENOISER}-{pool}" if pool else service

    def _servers_env(self) -> dict[str, str]:
        return {
            "VITASCOPE_NATS_URL": self.nats.url,
            "VITASCOPE_S3_ENDPOINT": self.s3.endpoint,
            "VITASCOPE_S3_ACCESS_KEY": self.s3.access_key,
            "VITASCOPE_S3_SECRET_KEY": self.s3.secret_key,
        }

    @property
    def gateways(self) -> list[str]:
        """The gateways' URLs."""
        return [process.url for process in self._processes[GATEWAY]]

    def processes(self, service: str | None = None) -> list[ServiceProcess]:
        """Return the processes of a service, or all."""
        names = [service] if service else list(self._processes)
        return [process for name in names for process in self._processes[name]]

    def process(self, service: str, index: int = 0) -> ServiceProcess:
        """Return one process of a service."""
        return self._processes[service][index]

    def scale(self, service: str, replicas: int, *, wait: bool = True) -> None:
        """Start processes of a service, or ask the last ones to end; ``wait`` until that is done.

        Raises:
            ServiceFailed: A new one does not come up.
        """
        running = self._processes[service]
        surplus = running[replicas:]
        del running[replicas:]
        for process in surplus:
            process.ask_to_end()
        self._add(service, replicas - len(running))
        if wait:
            for process in surplus:
                process.wait(STOP_S)
            self.wait_ready(service)

    def kill(self, service: str, index: int = 0) -> None:
        """End a process with SIGKILL; it stays in the list and may be started again."""
        self.process(service, index).kill()

    def restart(
        self, service: str, index: int = 0, *, wait: bool = True, extra: Mapping[str, str] | None = None
    ) -> None:
        """Start a process that has ended, a gateway on its old port; ``extra`` are variables of this start alone."""
        process = self.process(service, index)
        process.start(extra)
        if wait:
            process.wait_ready(self._ready_s)

    def pause(self, service: str, index: int = 0) -> None:
        """Let a process stand still (SIGSTOP)."""
        self.process(service, index).pause()

    def resume(self, service: str, index: int = 0) -> None:
        """Let a paused process go on."""
        self.process(service, index).resume()

    def logs(self, service: str) -> str:
        """Return what all processes of a service have logged."""
        return "\n".join(line for process in self._processes[service] for line in process.lines)

    def _add(self, service: str, count: int) -> None:
        for _ in range(count):
            index = len(self._processes[service])
            env = self.env(service)
            if service == GATEWAY and self._gateway_port:
                env["VITASCOPE_GATEWAY_PORT"] = str(self._gateway_port + index)
            process = ServiceProcess(f"{service}-{index}", self._programs[service].module, env, self._heard)
            self._processes[service].append(process)
            process.start()


def run_bootstrap(
    env: Mapping[str, str], pools: Iterable[str], heard: Callable[[str, str], None] = lambda *_: None
) -> None:
    """Make streams, consumers and buckets on the broker and the store that ``env`` names.

    Raises:
        ServiceFailed: It ended with an error.
    """
    command = [sys.executable, "-m", "vitascope_platform.bootstrap"]
    command += [word for pool in pools for word in ("--pool", pool)]
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        heard("bootstrap", line)
    if done.returncode:
        raise ServiceFailed(f"the bootstrap ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


_DEFAULTS = {
    "VITASCOPE_HEALTH_HOST": "127.0.0.1",
    "VITASCOPE_HEALTH_PORT": "0",
    "VITASCOPE_GATEWAY_HOST": "127.0.0.1",
    "VITASCOPE_GATEWAY_PORT": "0",
    "VITASCOPE_WORKER_GRACE_S": "5",
    "VITASCOPE_GATEWAY_SHUTDOWN_S": "5",
}
"""Nothing is reached from other machines, every port is free, and nobody waits long for the end."""


def _programs(
    model: str,
    pool: str,
    replicas: Mapping[str, int],
    service_env: Mapping[str, Mapping[str, str]],
    extra: Mapping[str, Program],
) -> dict[str, Program]:
    denoiser = {"VITASCOPE_DENOISER_MODEL_PATH": model, "VITASCOPE_DENOISER_POOL": pool}
    programs = {
        GATEWAY: Program("vitascope_gateway"),
        DENOISER: Program("vitascope_denoiser", env=denoiser),
        INTERPOLATOR: Program("vitascope_interpolator", replicas=0),
        UPSCALER: Program("vitascope_upscaler", replicas=0),
        UPLOADER: Program("vitascope_uploader"),
        **extra,
    }
    if unknown := (replicas.keys() | service_env.keys()) - programs.keys():
        raise ValueError(f"no such service: {', '.join(sorted(unknown))}; there are {', '.join(programs)}")
    return {
        name: Program(
            program.module,
            replicas.get(name, program.replicas),
            {**program.env, **service_env.get(name, {})},
            program.stage,
        )
        for name, program in programs.items()
    }


def _end(processes: Iterable[ServiceProcess]) -> None:
    started = [process for process in processes if process.alive]
    for process in started:
        process.ask_to_end()
    for process in started:
        process.wait(STOP_S)
