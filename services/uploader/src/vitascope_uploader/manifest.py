"""The manifest: what the files of one result are and which job they came from, stored beside them.

It is written last, so a folder with a manifest is complete, and it holds the job's two lasting records, so that
``python -m vitascope_platform.rebuild`` can bring back a job whose records are lost. Like the files it belongs to the
job's owner, whose name it holds, and the prompts in it are private.
"""

from __future__ import annotations

import json

from vitascope_core.job import JobEnd, JobSpec
from vitascope_core.plain import plain

NAME = "manifest.json"
MANIFEST_VERSION = 2


def manifest(spec: JobSpec, end: JobEnd) -> bytes:
    """Return the manifest as JSON, UTF-8: the spec and the end in the form that the job store keeps them."""
    content = {"schema_version": MANIFEST_VERSION, "spec": plain(spec), "end": plain(end)}
    return json.dumps(content, ensure_ascii=False, indent=1).encode()
