"""What the options name: a source, and transforms for its frames."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from vitascope_cli.errors import UsageError
from vitascope_cli.node import Stages
from vitascope_cli.options import TESTCARD
from vitascope_cli.postprocessing import load_transforms
from vitascope_core.errors import InvalidSettings
from vitascope_denoiser.child import ChildEngine
from vitascope_denoiser.settings import EngineSettings
from vitascope_frames.testcard import Testcard, testcard_card


@asynccontextmanager
async def loaded(options: argparse.Namespace) -> AsyncIterator[Stages]:
    """Load the transforms and the model, and keep them while the block runs.

    Raises:
        UsageError: The options contradict each other.
        InvalidModel: The model cannot be served.
        InvalidWeights, DeviceOutOfMemory: See `load_transforms`.
        EngineCrashed: Its process died.
    """
    # First, since they load in a moment: who misspelt their weights should not have waited for the model.
    transforms = await asyncio.to_thread(load_transforms, options)
    if options.model_path == TESTCARD:
        interval_s = options.checkpoint_interval
        card = replace(testcard_card(TESTCARD), resumable=interval_s > 0)
        yield Stages(card, Testcard(options.testcard_step_s, options.testcard_chunk_s, interval_s), transforms)
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
            checkpoint_interval=options.checkpoint_interval,
            resume=options.resume,
        )
    except InvalidSettings as error:
        raise UsageError(str(error)) from error
    engine = ChildEngine(settings)
    try:
        yield Stages(await asyncio.to_thread(engine.start), engine, transforms)
    finally:
        await asyncio.to_thread(engine.close)
