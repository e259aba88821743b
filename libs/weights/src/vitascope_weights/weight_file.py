"""Where weights lie: a file, a folder or a Hugging Face repository, which is fetched once and kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging

from vitascope_core.errors import InvalidWeights
from vitascope_models.catalogue import embedded
from vitascope_weights.choice import is_url

_REPOSITORY = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?::([^:]+))?")

# That of the HTTP library inside, which is another one in each of its major versions.
_NETWORK_ERROR: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]


def find_weights(source: str, *names: Sequence[str]) -> Path:
    """Return the file that a name stands for, downloaded if need be; what exists locally wins.

    The download shows a progress bar and is kept; ``HF_HOME`` and ``HF_HUB_OFFLINE`` are heeded by the library.

    Args:
        source: The name of a demonstration model, a file, a folder, ``owner/name`` or ``owner/name:file`` on Hugging
            Face.
        names: What the file may be called in a folder or repository. A group holds names of the same weights, of which
            any will do; a later group is taken only where there is certainly nothing of the ones before it, so that the
            state of a cache never chooses between different weights.

    Raises:
        InvalidWeights: There is none.
    """
    if is_url(source):
        raise InvalidWeights(f"weights are a local path or a Hugging Face repo id, not a URL: {source}")
    path = embedded(source) or Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path, names)
    if path.exists():
        return path
    match = _REPOSITORY.fullmatch(source)
    if match is None:
        raise InvalidWeights(f"{source}: no such file or folder, and not a Hugging Face repo id (owner/name)")
    return _in_repository(match[1], ((match[2],),) if match[2] else names)


def _in_folder(folder: Path, names: Sequence[Sequence[str]]) -> Path:
    every = [name for group in names for name in group]
    found = next((folder / name for name in every if (folder / name).is_file()), None)
    if found is None:
        raise InvalidWeights(f"{folder} has neither {' nor '.join(every)}")
    return found


def _in_repository(repository: str, names: Sequence[Sequence[str]]) -> Path:
    for group in names:
        found = _download(repository, group)
        if found is not None:
            return found
    raise InvalidWeights(f"{repository} has no {' and no '.join(name for group in names for name in group)}")


def _download(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of the files that is there, or None if certainly none is."""
    # Else it tells every repeated attempt twice, once past our own logging.
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    away: LocalEntryNotFoundError | None = None
    for name in names:
        try:
            # Asked once whether the hub is there, which takes long when it is not.
            return Path(hf_hub_download(repository, name, local_files_only=away is not None))
        except LocalEntryNotFoundError as error:
            away = error  # perhaps another name is in the cache
        except GatedRepoError as error:
            raise InvalidWeights(
                f"{repository} is gated: accept its licence on huggingface.co and set HF_TOKEN"
            ) from error
        except RepositoryNotFoundError as error:
            raise InvalidWeights(
                f"{repository} is neither a local path nor a Hugging Face repository you may read"
            ) from error
        except EntryNotFoundError:
            continue
        except (_NETWORK_ERROR, HFValidationError, OSError) as error:
            raise InvalidWeights(f"{repository} could not be downloaded: {error}") from error
    if away is None:
        return None
    raise InvalidWeights(
        f"{' or '.join(names)} of {repository} is not in the local cache and Hugging Face cannot be reached"
    ) from away
