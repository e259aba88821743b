"""Which source the options name."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vitascope_cli.errors import UsageError
from vitascope_cli.node import Stages
from vitascope_cli.options import TESTCARD
from vitascope_core.errors import InvalidSettings
from vitascope_denoiser.child import ChildEngine
from vitascope_denoiser.settings import EngineSettings
from vitascope_frames.testcard import Testcard, testcard_card


@asynccontextmanager
async def loaded(options: argparse.Namespace) -> AsyncIterator[Stages]:
    """Load the model and keep it while the block runs.

    Raises:
        UsageError: The options contradict each other.
        InvalidModel: The model cannot be served.
        EngineCrashed: Its process died.
    """
    if options.model_path == TESTCARD:
        yield Stages(testcard_card(TESTCARD), Testcard(options.testcard_step_s, options.testcard_chunk_s))
        return
    if options.testcard_step_s or options.testcard_chunk_s:
        raise UsageError(f"--testcard-step-s and --testcard-chunk-s need --model-path {TESTCARD}")
    try:
        settings = EngineSettings(
            model_path=options.model_path,
            revision=options.revision,
            served_model_name=options.served_model_name,
            device=options.device,
            dit_precision=options.dit_precision,
            vae_precision=options.vae_precision,
            vae_tiling=options.vae_tiling,
            vae_slicing=options.vae_slicing,
        )
    except InvalidSettings as error:
        raise UsageError(str(error)) from error
    engine = ChildEngine(settings)
    try:
        yield Stages(await asyncio.to_thread(engine.start), engine)
    finally:
        await asyncio.to_thread(engine.close)
