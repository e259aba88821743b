"""What a job cost, as clients are told."""

from __future__ import annotations

from typing import Any

from vitascope_core.job import Usage


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return what a job cost."""
    return {
        "seconds": {stage: round(seconds, 3) for stage, seconds in usage.seconds.items()},
        "queue_seconds": round(usage.queue_seconds, 3),
        "attempts": usage.attempts,
        "frames": usage.frames,
        "bytes": usage.bytes,
        "repeated_steps": usage.repeated_steps,
        "saved_seconds": round(usage.saved_seconds, 3),
    }


def image_usage_object(usage: Usage) -> dict[str, Any]:
    """Return the same with OpenAI's keys for images: tokens, of which there are none, but clients add them up."""
    details = {"text_tokens": 0, "image_tokens": 0}
    return {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "input_tokens_details": details,
        "output_tokens_details": details,
        **usage_object(usage),
    }
