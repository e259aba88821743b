"""Which pipelines, with which schedulers, are known to go on from a checkpoint bit for bit.

Known means tried: `tests/test_denoiser_resume.py` stops each of them and compares the latents. Others may keep
something between two steps that the hook does not see; their jobs begin anew unless the operator wants them close.
"""

from __future__ import annotations

from typing import Any

from vitascope_denoiser.settings import EngineSettings, Resume

_FLOW = frozenset({"FlowMatchEulerDiscreteScheduler"})

FAMILIES = {
    "FluxImg2ImgPipeline": _FLOW,
    "FluxKontextPipeline": _FLOW,
    "FluxPipeline": _FLOW,
    "HunyuanVideo15Pipeline": _FLOW,
    "LTX2Pipeline": _FLOW,
    "QwenImagePipeline": _FLOW,
    "WanImageToVideoPipeline": frozenset({"UniPCMultistepScheduler"}),
    "WanPipeline": _FLOW | {"DPMSolverMultistepScheduler", "UniPCMultistepScheduler"},
    "ZImagePipeline": _FLOW,
}
"""Classes of schedulers by classes of pipelines."""


def why_not_exact(pipe: Any) -> str | None:
    """Return why jobs of a pipeline may not end bit-equal after going on from a checkpoint; None if they do."""
    name, scheduler = type(pipe).__name__, type(pipe.scheduler).__name__
    if name not in FAMILIES:
        return f"{name} is not known to go on from a checkpoint"
    if scheduler not in FAMILIES[name]:
        return f"{name} with {scheduler} is not known to go on from a checkpoint"
    return None


def why_not_resumable(pipe: Any, settings: EngineSettings) -> str | None:
    """Return why jobs of a pipeline do not go on from a checkpoint, as the end of a sentence; None if they do."""
    if not settings.checkpoint_interval:
        return "checkpoints are switched off"
    return None if settings.resume is Resume.CLOSE else why_not_exact(pipe)
