"""The networks that are loaded, by the name of their weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from vitascope_core.errors import InvalidWeights

K = TypeVar("K", bound=Hashable)
N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class _Loaded(Generic[N]):
    path: Path
    changed_ns: int
    network: N

    @property
    def outdated(self) -> bool:
        try:
            return self.path.stat().st_mtime_ns != self.changed_ns
        except OSError:
            return False  # What is loaded is worth more than the file.


class KeptNetworks(Generic[K, N]):
    """Loads networks when they are first needed and keeps some. Not for two threads at once.

    Names of the same file share its network.

    Args:
        find: Returns the file of weights that a name stands for. A repository is asked once: what it holds then is what
            its name stands for.
        load: Makes the network from a file of weights and the name that it was found under.
        kept: How many are kept; the one that was used longest ago makes room.
    """

    def __init__(self, find: Callable[[K], Path], load: Callable[[Path, K], N], kept: int) -> None:
        self._find = find
        self._load = load
        self._kept = kept
        self._paths: dict[K, Path] = {}
        self._loaded: OrderedDict[Path, _Loaded[N]] = OrderedDict()

    def file(self, name: K) -> Path:
        """Return the file of weights that a name stands for.

        Raises:
            InvalidWeights: From ``find``.
        """
        path = self._paths.get(name)
        # A file that made room and is gone may have a successor under its name.
        if path is None or (path not in self._loaded and not path.exists()):
            path = self._paths[name] = self._find(name)
        return path

    def get(self, name: K) -> N:
        """Return the network of a name. A file that has changed is loaded again, one that is gone is not missed.

        Raises:
            InvalidWeights: The file cannot be read, or from ``find`` and ``load``.
        """
        path = self.file(name)
        known = self._loaded.get(path)
        if known is None or known.outdated:
            known = self._loaded[path] = self._read(path, name)
        self._loaded.move_to_end(path)
        return known.network

    def _read(self, path: Path, name: K) -> _Loaded[N]:
        # Before the next one is there, or the device would hold one more than it should.
        self._loaded.pop(path, None)
        while len(self._loaded) >= self._kept:
            self._loaded.popitem(last=False)
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError as error:
            raise InvalidWeights(f"{path} cannot be read: {error.strerror}") from error
        return _Loaded(path, changed_ns, self._load(path, name))
