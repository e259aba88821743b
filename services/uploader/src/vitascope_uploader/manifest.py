"""The manifest: what the files of one result are and which job they came from, stored beside them.

It is written last, so a folder with a manifest is complete, and it holds what is needed to show the job again after its
records have expired. Like the files it belongs to the job's owner; nothing but the prompts in it is private.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction

from vitascope_core.job import FileRecord, JobSpec

NAME = "manifest.json"
MANIFEST_VERSION = 1


def manifest(spec: JobSpec, token: str, files: list[FileRecord]) -> bytes:
    """Return the manifest as JSON, UTF-8. Fractions are ``"num/den"``; the owner and the pool are left out."""
    content = {
        "schema_version": MANIFEST_VERSION,
        "token": token,
        "job": {
            "id": spec.id,
            "kind": spec.kind,
            "model": spec.model,
            "created_ms": spec.created_ms,
            "result_ttl_s": spec.result_ttl_s,
            "denoise": asdict(spec.denoise),
            "fps": spec.fps,
            "plan": asdict(spec.plan),
            "output": asdict(spec.output),
        },
        "files": [asdict(file) for file in files],
    }
    return json.dumps(content, ensure_ascii=False, indent=1, default=_as_text).encode()


def _as_text(value: object) -> str:
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    raise TypeError(f"a manifest cannot hold {type(value).__name__}")
