"""Pictures through FFmpeg's filters, for what is rare: interlaced ones, and those with a high dynamic range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
from av.filter import Graph

from vitascope_core.errors import DamagedMedia


class PictureFilter:
    """A chain of filters. A picture may come out later than it went in, and keeps its time."""

    def __init__(self, like: av.VideoFrame, filters: Sequence[tuple[str, str]]) -> None:
        """Build the chain.

        Args:
            like: A picture of the video.
            filters: Each one's name and arguments, in order.
        """
        self._graph = Graph()
        clock = like.time_base or Fraction(1, 1000)
        last = self._graph.add_buffer(width=like.width, height=like.height, format=like.format, time_base=clock)
        for name, arguments in (*filters, ("buffersink", "")):
            following = self._graph.add(name, arguments) if arguments else self._graph.add(name)
            last.link_to(following)
            last = following
        self._graph.configure()

    def push(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """Put a picture in and yield those that are ready."""
        yield from self._pushed(picture)

    def finish(self) -> Iterator[av.VideoFrame]:
        """Yield those that were held back."""
        yield from self._pushed(None)

    def _pushed(self, picture: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        try:
            self._graph.vpush(picture)
            while True:
                yield self._graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        except av.error.FFmpegError as error:
            raise DamagedMedia(f"a picture cannot be converted: {error.strerror}") from error
