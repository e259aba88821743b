"""The names that a request may use, and what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from vitascope_core.errors import UnknownField, UnsupportedField
from vitascope_gateway.fields import Fields


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The fields of one endpoint.

    Attributes:
        honoured: Read by the admission.
        ignored: Said by other clients for other servers; they change no pixel.
        off: Flags that may be false, with what is missing for true.
        unsupported: Known fields that cannot be honoured, with the reason.
    """

    honoured: frozenset[str]
    ignored: frozenset[str]
    off: Mapping[str, str]
    unsupported: Mapping[str, str]

    def check(self, fields: Fields) -> None:
        """Refuse what would otherwise be ignored in silence.

        Raises:
            UnsupportedField: The API knows the field but cannot do what it asks for.
            UnknownField: Nobody knows the field.
        """
        for name in fields:
            if name in self.honoured or name in self.ignored or not fields.has(name):
                continue
            if name in self.off:
                if fields.flag(name):
                    raise UnsupportedField(name, self.off[name])
            elif name in self.unsupported:
                raise UnsupportedField(name, self.unsupported[name])
            else:
                raise UnknownField(name, get_close_matches(name, sorted(self.honoured), n=2, cutoff=0.75))


_SAMPLING = {
    "prompt",
    "negative_prompt",
    "model",
    "task_type",
    "n",
    "num_outputs_per_prompt",
    "size",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "seed",
}
_ENCODING = {"quality", "output_quality", "output_compression", "output_format"}
_UPSCALING = {"enable_upscaling", "upscaling_scale", "upscaling_model_path"}
_INTERPOLATION = {
    "enable_frame_interpolation",
    "frame_interpolation_exp",
    "frame_interpolation_scale",
    "frame_interpolation_model_path",
}

_IGNORED = frozenset({"user", "safety_identifier", "style", "moderation", "metadata", "service_tier", "store"})

_NO_TRICKS = "this server computes every step as the model defines it"
_OFF = {
    "enhance_prompt": "no prompt enhancer is installed",
    "enable_teacache": _NO_TRICKS,
    "enable_cache_dit": _NO_TRICKS,
    "enable_spectrum": _NO_TRICKS,
    "use_diffusion_decoder": "the model's own decoder is used",
    "profile": "a request cannot make the server write files",
    "profile_all_stages": "a request cannot make the server write files",
    "generate_sound": "the model makes no sound",
}

_NO_INPUTS = "the models served here start from a prompt alone"
_SERVER_PATH = "a request cannot name files of the server"
_NO_PARAMETER = "the model has no such parameter"
_INPUTS = (
    "input_reference",
    "reference_url",
    "image",
    "images",
    "image_url",
    "image_reference",
    "mask",
    "markup",
    "url",
    "video",
    "video_url",
    "video_reference",
    "audio_reference",
    "characters",
    "input_fidelity",
)
_SERVER_PATHS = ("file_path", "output_path", "perf_dump_path", "video_path", "image_path", "num_profiled_timesteps")
_PARAMETERS = (
    "true_cfg_scale",
    "flow_shift",
    "max_sequence_length",
    "generator_device",
    "diffusers_kwargs",
    "cache_dit_params",
    "cfg_gate_step",
    "attention_backend_override",
    "skip_softmax_params",
    "progressive_mode",
    "progressive_levels",
    "progressive_delta",
    "boundary_ratio",
    "aspect_ratio",
    "sound_duration",
    "lora",
    "loras",
    "x264_preset",
    "complexity",
    "frame_count",
    "frame_duration_ms",
    "svg",
)
_UNSUPPORTED = {
    **dict.fromkeys(_INPUTS, _NO_INPUTS),
    **dict.fromkeys(_SERVER_PATHS, _SERVER_PATH),
    **dict.fromkeys(_PARAMETERS, _NO_PARAMETER),
}

VIDEO_FIELDS = Vocabulary(
    honoured=frozenset(
        {
            *_SAMPLING,
            *_ENCODING,
            *_UPSCALING,
            *_INTERPOLATION,
            "seconds",
            "num_frames",
            "fps",
            "chunk_frames",
            "previews",
        }
    ),
    ignored=_IGNORED,
    off={**_OFF, "stream": "a video is polled, its events are not streamed"},
    unsupported={
        **_UNSUPPORTED,
        "response_format": "a video is fetched from its content endpoint",
        "background": "videos have no transparency",
    },
)

_NO_FRAMES = "an image has no frames to interpolate"
IMAGE_FIELDS = Vocabulary(
    honoured=frozenset(
        {
            *_SAMPLING,
            *_ENCODING,
            *_UPSCALING,
            "response_format",
            "background",
            "stream",
            "partial_images",
            "num_frames",
        }
    ),
    ignored=_IGNORED,
    off={**_OFF, "enable_frame_interpolation": _NO_FRAMES},
    unsupported={
        **_UNSUPPORTED,
        **dict.fromkeys(_INTERPOLATION - {"enable_frame_interpolation"}, _NO_FRAMES),
        **dict.fromkeys(("seconds", "fps", "chunk_frames"), "an image has no duration"),
        "previews": "the previews of an image are its partial_images",
    },
)

_NO_URLS = "the file is sent in the form; URLs are not fetched"
ENHANCE_IMAGE_FIELDS = Vocabulary(
    honoured=frozenset({*_ENCODING, *_UPSCALING, "image", "response_format"}),
    ignored=_IGNORED,
    off={**_OFF, "enable_frame_interpolation": _NO_FRAMES, "stream": "the picture is answered when it is finished"},
    unsupported={
        **_UNSUPPORTED,
        **dict.fromkeys((name for name in _INPUTS if name != "image"), _NO_URLS),
        **dict.fromkeys(_SAMPLING, "the picture is there already; it is enlarged, not generated"),
        **dict.fromkeys(_INTERPOLATION - {"enable_frame_interpolation"}, _NO_FRAMES),
        **dict.fromkeys(("seconds", "fps", "num_frames", "chunk_frames"), "an image has no duration"),
        **dict.fromkeys(("previews", "partial_images"), "nothing is denoised, so there is nothing to preview"),
        "background": "a picture keeps the transparency that it has",
    },
)

_NOT_GENERATED = "the video is there already; it is processed, not generated"
_GENERATING = _SAMPLING | {"seconds", "num_frames", "previews"}
_OTHER_INPUTS = tuple(name for name in _INPUTS if name != "video")
ENHANCE_FIELDS = Vocabulary(
    honoured=frozenset({*_ENCODING, *_UPSCALING, *_INTERPOLATION, "video", "video_id", "variant", "chunk_frames"}),
    ignored=_IGNORED,
    off={**_OFF, "stream": "a video is polled, its events are not streamed"},
    unsupported={
        **_UNSUPPORTED,
        **dict.fromkeys(_OTHER_INPUTS, "the video is sent as a file or named by its id; URLs are not fetched"),
        **dict.fromkeys(_GENERATING, _NOT_GENERATED),
        "fps": "a file has a frame rate of its own",
        "response_format": "a video is fetched from its content endpoint",
        "background": "videos have no transparency",
    },
)
