"""One job in this process, from its submission to the file that it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tqdm import tqdm

from vitascope_cli.errors import CommandFailed
from vitascope_cli.node import Node
from vitascope_core.job import EndState, FileRecord, JobEnd, JobSpec

LINE_EVERY = 10
"""Percent between two lines of progress where there is no terminal."""


async def run_job(
    node: Node, spec: JobSpec, phase: Callable[[int], str], *, file: Path | None = None, lines: bool = False
) -> JobEnd:
    """Run the job to its end, showing progress on a terminal.

    Args:
        node: Where it runs.
        spec: The job.
        phase: Names what goes on at a percentage.
        file: What the job reads, if it reads a file; it is moved away.
        lines: Whether progress is told in lines where there is no terminal.

    Raises:
        CommandFailed: The job failed.
    """
    await node.submission.submit(spec, file)
    failing = asyncio.create_task(node.failure())
    try:
        async for progress in _progress(node, spec.id, phase, lines=lines):
            if failing.done():
                failing.result()
            if isinstance(progress, JobEnd):
                if progress.state is not EndState.COMPLETED:
                    raise CommandFailed(f"{progress.code}: {progress.message}")
                return progress
    except asyncio.CancelledError:
        await node.submission.cancel(spec.id)
        raise
    finally:
        failing.cancel()
        await asyncio.gather(failing, return_exceptions=True)
    raise CommandFailed("the job vanished")


async def _progress(
    node: Node, job_id: str, phase: Callable[[int], str], *, lines: bool
) -> AsyncIterator[int | JobEnd]:
    """Yield the percentage as it grows, and the end."""
    terminal, told = sys.stderr.isatty(), 0
    with tqdm(
        total=100,
        disable=not terminal,
        desc="queued",
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}",
        leave=False,
    ) as bar:
        while True:
            end = await node.board.wait_end(job_id, timeout_s=0.1)
            view = node.board.job(job_id)
            if view is not None:
                bar.set_description_str("done" if end is not None else phase(view.progress), refresh=False)
                bar.update(view.progress - bar.n)
                if lines and not terminal and end is None and view.progress >= told + LINE_EVERY:
                    told = view.progress - view.progress % LINE_EVERY
                    print(f"{phase(view.progress)} {told} %", file=sys.stderr, flush=True)
                yield view.progress
            if end is not None:
                yield end
                return


async def copy_result(node: Node, file: FileRecord, path: Path) -> Path:
    """Copy a finished file to ``path``; a file that is there is replaced, once all of the new one is.

    Raises:
        CommandFailed: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as target:
            async for piece in node.platform.results.read(file.key):
                target.write(piece)
        shutil.move(partial, path)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path
