"""TCP proxies on loopback: one counts what passes through it, the other slows it down or lets nothing pass."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Self


class CountingProxy:
    """Forwards connections to an address and counts the bytes of both directions.

    Args:
        target: Returns ``host:port``; asked at every connection, so that the proxy can be there before its target.
    """

    def __init__(self, target: Callable[[], str]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.bytes = 0
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread that accepts, which closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client, _ = self._listener.accept()
                host, _, port = self._target().rpartition(":")
                server = socket.create_connection((host, int(port)))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._see(data)
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def _see(self, data: bytes) -> None:
        with self._lock:
            self.bytes += len(data)


class Partition(CountingProxy):
    """A link that can be cut: no connection ends, and nothing arrives until it is whole again, as TCP has it.

    Attributes:
        delay_s: How long every piece of up to 64 KiB takes, seconds.
    """

    def __init__(self, target: Callable[[], str]) -> None:
        super().__init__(target)
        self.delay_s = 0.0
        self._whole = threading.Event()
        self._whole.set()

    def __exit__(self, *exception: object) -> None:
        self.heal()
        super().__exit__(*exception)

    def cut(self) -> None:
        """Hold back everything, in both directions, and what comes over new connections too."""
        self._whole.clear()

    def heal(self) -> None:
        """Let everything through again, what was held back first."""
        self._whole.set()

    def _see(self, data: bytes) -> None:
        super()._see(data)
        time.sleep(self.delay_s)
        self._whole.wait()
