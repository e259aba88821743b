"""What a pipeline's ``__call__`` takes, and how a spec is said to it."""

from __future__ import annotations

import inspect
from typing import Any

from vitascope_core.job import DenoiseSpec


class Call:
    """The parameters of a pipeline.

    Most pipelines name classifier-free guidance ``guidance_scale``. Some keep that name for a guidance that was
    distilled into the transformer and call the real one ``true_cfg_scale``: there a request's guidance means the first
    if the transformer has been distilled so, else the second.

    Attributes:
        guidance: Name of the parameter that a request's guidance scale goes to; None where there is none.
        guidance_2: Whether there is a second transformer with a guidance of its own.
        negative: Whether a negative prompt has an effect.
    """

    def __init__(self, pipe: Any) -> None:
        self._parameters = inspect.signature(type(pipe).__call__).parameters
        names = [name for name in ("guidance_scale", "true_cfg_scale") if self.takes(name)]
        if len(names) == 2:
            distilled = bool(getattr(pipe.transformer.config, "guidance_embeds", False))
            names = names[:1] if distilled else names[1:]
        self.guidance = names[0] if names else None
        self.guidance_2 = (
            self.takes("guidance_scale_2")
            and getattr(pipe, "transformer_2", None) is not None
            and pipe.config.get("boundary_ratio") is not None
        )
        self._true_cfg = self.takes("true_cfg_scale")
        self.negative = self.takes("negative_prompt") and (not self._true_cfg or self.guidance == "true_cfg_scale")

    def takes(self, name: str) -> bool:
        """Return whether there is a parameter of this name."""
        return name in self._parameters

    def default(self, name: str) -> Any:
        """Return a parameter's default; None if it has none or there is no such parameter."""
        parameter = self._parameters.get(name)
        return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default

    @property
    def required(self) -> tuple[str, ...]:
        """Parameters without a default, other than the prompt."""
        return tuple(
            name
            for name, parameter in self._parameters.items()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            and name not in ("self", "prompt")
        )

    def arguments(self, spec: DenoiseSpec) -> dict[str, Any]:
        """Return the arguments that a spec stands for; every output is a prompt of its own in the batch."""
        outputs = len(spec.seeds)
        arguments: dict[str, Any] = {
            "prompt": [spec.prompt] * outputs,
            "height": spec.height,
            "width": spec.width,
            "num_inference_steps": spec.num_inference_steps,
        }
        if self.takes("max_area"):
            # Else the size is only taken for a ratio.
            arguments["max_area"] = spec.height * spec.width
        if self.takes("num_frames"):
            arguments["num_frames"] = spec.num_frames
        # True guidance is off without a negative prompt, so that an empty one is said as well.
        if self.negative and (spec.negative_prompt or self._true_cfg):
            arguments["negative_prompt"] = [spec.negative_prompt] * outputs
        if self.guidance is not None and spec.guidance_scale is not None:
            arguments[self.guidance] = spec.guidance_scale
        if self.guidance_2 and spec.guidance_scale_2 is not None:
            arguments["guidance_scale_2"] = spec.guidance_scale_2
        return arguments
