"""``python e2e/enhancing.py CLIP FRAMES``: a file through every stage of one process, in chunks of 5 frames.

The stages are those of ``vitascope enhance``, with a transform that takes no time. Prints how many frames came out.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from inverter_service import CARD, Inverter

from vitascope_cli.node import NodeSettings, Transforms, running
from vitascope_gateway.enhancement import admit_enhancement
from vitascope_gateway.fields import Fields
from vitascope_gateway.ingestion import Given
from vitascope_gateway.settings import GatewaySettings
from vitascope_platform.settings import WorkerSettings

FIELDS = {"enable_upscaling": True, "upscaling_scale": 1, "chunk_frames": 5}


async def main(path: Path) -> int:
    settings = NodeSettings(WorkerSettings(), GatewaySettings())
    with tempfile.TemporaryDirectory() as name:
        staged = Path(shutil.copy(path, Path(name) / "input"))
        async with running(Path(name), Transforms([(CARD, Inverter())]), settings) as node:
            given = Given(path.name, staged.stat().st_size, "input")
            clock, catalogue = node.platform.clock, node.board.catalogue
            spec = admit_enhancement(Fields(FIELDS), given, catalogue, "", clock, settings.gateway)
            await node.submission.submit(spec, staged)
            end = await node.board.wait_end(spec.id, 300)
    if end is None or not end.files:
        raise RuntimeError(end)
    return end.files[0].frames


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(main(Path(sys.argv[1])))}\n")
