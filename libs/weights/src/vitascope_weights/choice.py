"""Which weights a stage may load, as its settings say. No torch."""

from __future__ import annotations

from vitascope_core.errors import InvalidSettings


def is_url(source: str) -> bool:
    """Whether a name is one that nothing is ever fetched from."""
    return "://" in source


def check_names(model_path: str, allowed_models: tuple[str, ...]) -> None:
    """Check the weights that settings name.

    Args:
        model_path: Those for requests that name none.
        allowed_models: Others that requests may name.

    Raises:
        InvalidSettings: A name is empty or a URL.
    """
    for field, name in (("model_path", model_path), *(("allowed_models", each) for each in allowed_models)):
        if not name.strip():
            raise InvalidSettings(f"{field} must name weights")
        if is_url(name):
            raise InvalidSettings(f"{field} must be a local path or a Hugging Face repo id, not a URL: {name}")


def every_name(model_path: str, allowed_models: tuple[str, ...]) -> tuple[str, ...]:
    """Return all names that requests may say, each once, the default first."""
    return tuple(dict.fromkeys((model_path, *allowed_models)))
