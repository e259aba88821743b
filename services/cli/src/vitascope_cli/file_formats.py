"""The formats of finished files, and the endings of their names."""

from __future__ import annotations

from collections.abc import Mapping

VIDEO: Mapping[str, str] = {".mp4": "mp4"}
PICTURES: Mapping[str, str] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
FORMATS: Mapping[str, str] = {**VIDEO, **PICTURES}
"""By the ending of a name, in lower case."""

ENDINGS: Mapping[str, str] = {"mp4": ".mp4", "png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""What a name ends in that nobody gave."""
