"""A real `vitascope serve` in a process of its own."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import av
import httpx
import numpy as np
from openai import OpenAI

from vitascope_frames.testcard import read_number

ADDRESS = re.compile(r"on (http://\S+)")


class Api:
    """A gateway, wherever it runs."""

    url = ""

    @property
    def openai(self) -> OpenAI:
        """The official client, as any user would make it."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def make(self, **fields: Any) -> str:
        """Start a video and return its id."""
        answer = httpx.post(f"{self.url}/v1/videos", json={"prompt": "a cat", **fields}, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def until(self, video: str, *states: str) -> dict[str, Any]:
        """Return the video as soon as it is in one of ``states`` (default: ended)."""
        wanted = states or ("completed", "failed")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.get(f"/v1/videos/{video}").json()
            if found.get("status") in wanted:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"{video} is {found}")

    def until_progress(self, video: str, percent: int) -> dict[str, Any]:
        """Return the video as soon as it is at least so far."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.get(f"/v1/videos/{video}").json()
            if found["progress"] >= percent:
                return found
            time.sleep(0.01)
        raise TimeoutError(f"{video} is {found}")


class Gateway(Api):
    """A gateway that is reached at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url


class Server(Api):
    """`vitascope serve` with the given flags on a free port; started on entry, ended on exit.

    Every wait is for an event of the server's; the bounds only end a test that would hang.
    """

    def __init__(self, state: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "vitascope_cli", "serve", "--port=0", f"--state-dir={state}", *flags]
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", **(env or {})}
        self.state = state
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def start(self) -> None:
        """Start, and return when the server answers."""
        lines: list[str] = []
        self.lines = lines
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._env
        )
        found = threading.Event()
        threading.Thread(target=_read, args=(self.process, lines, found), daemon=True).start()
        found.wait(120)
        address = ADDRESS.search("\n".join(self.lines))
        if address is None:
            self.terminate()
            raise RuntimeError("the server did not start:\n" + "\n".join(self.lines))
        self.url = address[1]

    def kill(self) -> None:
        """End the server as the kernel would: nothing is tidied up."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        """Ask the server to end and return its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)

    def files(self, store: str) -> list[str]:
        """Return the objects in a store's folder; folders that the server removes meanwhile are none of them."""
        root = self.state / store / "objects"
        return sorted(
            (Path(folder) / name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names
        )


def _read(process: subprocess.Popen[str], lines: list[str], found: threading.Event) -> None:
    """Collect what a process says; ``found`` is set when it has told its address, or has ended."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.append(line.rstrip())
            if ADDRESS.search(line):
                found.set()
    found.set()


def decode(data: bytes) -> list[np.ndarray]:
    """Return the frames of a video, RGB."""
    with av.open(io.BytesIO(data)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def numbers(data: bytes) -> list[int]:
    """Return the numbers that the testcard drew into a video's frames."""
    return [read_number(frame) for frame in decode(data)]
