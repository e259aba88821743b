"""One service in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

POLL_S = 0.05
STOP_S = 20.0
"""What a process that was told to end may take before it is killed."""

_HEALTH_PORT = re.compile(r"\bhealth_port\W+(\d+)")
_GATEWAY_PORT = re.compile(r"\bgateway_port\W+(\d+)")


class ServiceFailed(Exception):
    """A service did not come up; the message ends with its last log lines."""


class ServiceProcess:
    """A service as ``python -m module``; what it logs is read line by line, and its ports from there.

    Args:
        name: For people: ``denoiser-0``.
        module: What to run.
        env: The whole environment.
        heard: Called with every line, from a thread.
    """

    def __init__(
        self, name: str, module: str, env: Mapping[str, str], heard: Callable[[str, str], None] = lambda *_: None
    ) -> None:
        self.name = name
        self.lines: list[str] = []
        self._command = [sys.executable, "-m", module]
        self._env = {**env, "PYTHONUNBUFFERED": "1"}
        self._heard = heard
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._begun = 0
        self._paused = False
        self._told_to_end = False
        self._api_port = 0

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Start, or start again; a gateway that was started before keeps its port.

        One that runs is left alone, unless it was told to end: then its end is awaited.
        Variables in ``extra`` are those of this start alone, and win.
        """
        if self.alive:
            if not self._told_to_end:
                return
            self.wait(STOP_S)
        self._begun, self._paused, self._told_to_end = len(self.lines), False, False
        env = {**self._env, **(extra or {})}
        if self._api_port:
            env["VITASCOPE_GATEWAY_PORT"] = str(self._api_port)
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we end the services in order.
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), name=self.name, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        return self._started.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, if only paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._started.poll()

    @property
    def health_url(self) -> str:
        """Where it answers ``/readyz`` and ``/metrics``; "" before it has said so."""
        port = self._told(_HEALTH_PORT)
        return f"http://127.0.0.1:{port}" if port else ""

    @property
    def url(self) -> str:
        """Where a gateway answers; "" before it has said so, and for other services."""
        self._api_port = self._told(_GATEWAY_PORT) or self._api_port
        return f"http://127.0.0.1:{self._api_port}" if self._api_port else ""

    def hindrance(self) -> str | None:
        """Return why it is not ready, or None."""
        if not self.health_url:
            return "it has not said where it answers"
        try:
            with urllib.request.urlopen(f"{self.health_url}/readyz", timeout=5):
                return None
        except urllib.error.HTTPError as error:
            with contextlib.suppress(ValueError, KeyError):
                return str(json.loads(error.read())["error"])
            return str(error)
        except OSError as error:
            return str(error)

    def wait_ready(self, timeout_s: float) -> None:
        """Return once it is ready.

        Raises:
            ServiceFailed: It ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while (why := self.hindrance()) is not None:
            if not self.alive:
                self._join()
                raise ServiceFailed(f"{self.name} ended with exit code {self.exit_code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{self.name} is not ready after {timeout_s:g} s: {why}\n{self.tail()}")
            time.sleep(POLL_S)

    def wait_end(self, timeout_s: float) -> int:
        """Wait for the end of a process that ends by itself, and return its exit code.

        Raises:
            ServiceFailed: It still runs.
        """
        try:
            code = self._started.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ServiceFailed(f"{self.name} still runs after {timeout_s:g} s:\n{self.tail()}") from error
        self._join()
        return code

    def kill(self) -> None:
        """End it as the kernel would: nothing is tidied up."""
        if self.alive:
            self._started.kill()
            self._started.wait()
            self._join()

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        if self.alive:
            self.resume()
            self._told_to_end = True
            self._started.terminate()

    def wait(self, timeout_s: float) -> int:
        """Wait for the end of a process that was asked to, kill it if it takes too long, and return its exit code."""
        try:
            code = self._started.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._started.wait()
        self._join()
        return code

    def pause(self) -> None:
        """Let it stand still as a machine that hangs."""
        if self.alive:
            os.kill(self.pid, signal.SIGSTOP)
            self._paused = True

    def resume(self) -> None:
        """Let a paused process go on."""
        if self._paused and self.alive:
            os.kill(self.pid, signal.SIGCONT)
            self._paused = False

    def tail(self, count: int = 20) -> str:
        """Return its last log lines."""
        return "\n".join(f"  {line}" for line in self.lines[self._begun :][-count:])

    @property
    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def _told(self, pattern: re.Pattern[str]) -> int:
        for line in self.lines[self._begun :]:
            if match := pattern.search(line):
                return int(match[1])
        return 0

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line.rstrip("\n"))
                self._heard(self.name, line.rstrip("\n"))

    def _join(self) -> None:
        # A child of the process may keep the pipe open for a moment.
        if self._reader is not None:
            self._reader.join(5)
