"""The quality names of the API and the compression numbers they stand for."""

from __future__ import annotations

from vitascope_core.errors import InvalidRequest
from vitascope_core.job import JobKind

COMPRESSION = {"maximum": 100, "high": 90, "medium": 55, "low": 35}
DEFAULT_COMPRESSION = {JobKind.IMAGE: 75, JobKind.VIDEO: 50}
QUALITIES = (*COMPRESSION, "default")

MIN_VIDEO_COMPRESSION = 10
"""Below this H.264 has no CRF left (51 is its worst)."""


def compression_of(kind: JobKind, quality: str | None, compression: int | None) -> int:
    """Return the compression number, 0 to 100, that a request asks for.

    Args:
        kind: Images and videos have different defaults.
        quality: One of `QUALITIES`, or None for the default.
        compression: Explicit number, which wins over the name.

    Raises:
        InvalidRequest: The name is unknown or the number is out of range.
    """
    if compression is not None:
        low = MIN_VIDEO_COMPRESSION if kind is JobKind.VIDEO else 0
        if not low <= compression <= 100:
            raise InvalidRequest("output_compression", compression, f"an integer from {low} to 100")
        return compression
    if quality is None or quality == "default":
        return DEFAULT_COMPRESSION[kind]
    if quality not in COMPRESSION:
        raise InvalidRequest("output_quality", quality, "one of " + ", ".join(QUALITIES))
    return COMPRESSION[quality]
