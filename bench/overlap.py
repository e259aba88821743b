"""Decode of one job under the denoising of the next, with the testcard's delays, through every stage of one process."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from vitascope_cli.node import Node, NodeSettings, Stages, running
from vitascope_frames.testcard import Testcard, testcard_card
from vitascope_gateway.admission import admit_video
from vitascope_gateway.fields import Fields
from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.settings import WorkerSettings

STEPS, STEP_S = 10, 0.2
CHUNKS, CHUNK_S = 10, 0.15
JOBS = 4


async def _seconds(node: Node, jobs: int) -> float:
    """Return how long it takes until ``jobs`` that were submitted at once have ended."""
    fields = {
        "prompt": "x",
        "num_frames": CHUNKS * 4,
        "chunk_frames": 4,
        "num_inference_steps": STEPS,
        "size": "256x256",
    }
    begun = time.perf_counter()
    specs = []
    for _ in range(jobs):
        specs.append(admit_video(Fields(fields), node.board.catalogue, "", node.platform.clock, node.settings.gateway))
        await node.submission.submit(specs[-1])
    await asyncio.gather(*(node.board.wait_end(spec.id, timeout_s=300) for spec in specs))
    return time.perf_counter() - begun


async def measure() -> list[str]:
    """Return the lines of the report."""
    denoise, decode = STEPS * STEP_S, CHUNKS * CHUNK_S
    settings = NodeSettings(WorkerSettings(), GatewaySettings())
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(testcard_card("testcard"), Testcard(STEP_S, CHUNK_S))
        async with running(Path(folder), stages, settings) as node:
            one = await _seconds(node, 1)
            many = await _seconds(node, JOBS)
    ideal = JOBS * max(denoise, decode) + min(denoise, decode)
    return [
        f"one job                          {one:.2f} s   ratio to its delays alone {one / (denoise + decode):.2f}",
        f"{JOBS} jobs                           {many:.2f} s   ratio to perfect overlap {many / ideal:.2f}, "
        f"to one after the other {many / (JOBS * (denoise + decode)):.2f}",
    ]
