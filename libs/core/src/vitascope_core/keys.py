"""Names of objects and of key-value entries (DESIGN section 6)."""

from __future__ import annotations

from vitascope_core.plan import StageName


def job_prefix(job_id: str) -> str:
    """Return the prefix of everything that a job keeps in the frames store while it runs."""
    return f"jobs/{job_id}/"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Return the prefix of what one source attempt and its chunks keep in the frames store."""
    return f"{job_prefix(job_id)}{attempt}/"


def chunk_key(job_id: str, attempt: int, stage: StageName, output: int, index: int) -> str:
    """Return the object of a chunk."""
    return f"{attempt_prefix(job_id, attempt)}{stage}/{output}-{index}"


def checkpoint_key(job_id: str, attempt: int, step: int) -> str:
    """Return the object of a checkpoint."""
    return f"{attempt_prefix(job_id, attempt)}checkpoint-{step}"


def input_key(job_id: str, index: int) -> str:
    """Return the object of a file that a job was given."""
    return f"{job_prefix(job_id)}inputs/{index}"


def audio_key(job_id: str, attempt: int, output: int) -> str:
    """Return the object of an output's sound."""
    return f"{attempt_prefix(job_id, attempt)}audio-{output}"


def preview_key(job_id: str, attempt: int, index: int) -> str:
    """Return the object of an intermediate picture."""
    return f"{attempt_prefix(job_id, attempt)}preview-{index}"


def result_prefix(prefix: str, job_id: str) -> str:
    """Return the prefix of all of a job's results under the installation's ``prefix`` ("" or ending with a slash)."""
    return f"{prefix}{job_id}/"


def spec_entry(job_id: str) -> str:
    """Return the key of a job's spec in the jobs bucket."""
    return f"{job_id}.spec"


def source_entry(job_id: str) -> str:
    """Return the key of a job's source record in the jobs bucket."""
    return f"{job_id}.source"


def end_entry(job_id: str) -> str:
    """Return the key of a job's end in the jobs bucket."""
    return f"{job_id}.end"


def chunks_prefix(job_id: str, attempt: int | None = None, stage: StageName | None = None) -> str:
    """Return the prefix of a job's chunk records in the jobs bucket, narrowed to an attempt and a stage."""
    parts = [job_id, "chunk"]
    if attempt is not None:
        parts.append(str(attempt))
        if stage is not None:
            parts.append(stage)
    return ".".join(parts) + "."


def chunk_entry(job_id: str, attempt: int, stage: StageName, output: int, index: int) -> str:
    """Return the key of a chunk record in the jobs bucket."""
    return f"{chunks_prefix(job_id, attempt, stage)}{output}.{index}"
