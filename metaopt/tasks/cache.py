"""What took long to make and can be made again: tensors in the user's cache folder."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..core.errors import FileFormatError, StorageError
from ..weights.files import read_tensors, write_tensors

log = logging.getLogger(__name__)

_KIND = "cache"


class Made(NamedTuple):
    """What a file of the cache holds."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def cached(name: str, key: str, make: Callable[[], Made]) -> Made:
    """What `make` gives, made once and then mapped from a file; what is not touched is not loaded.

    A damaged file is made anew. A cache that cannot be written costs time, not the run.

    Args:
        name: what it is, as the file's name begins.
        key: equal only where `make` would give the same.
    """
    path = cache_dir() / f"{name}-{key}.safetensors"
    if os.path.lexists(path):  # unlike Path.exists, no error where the folder cannot be entered
        try:
            return Made(*read_tensors(path, _KIND))
        except FileFormatError as error:
            log.warning("%s. It is made anew", error)
    made = make()
    try:
        write_tensors(path, made.tensors, _KIND, made.facts)
        return Made(*read_tensors(path, _KIND, verify=False))
    except (FileFormatError, StorageError) as error:
        log.warning("%s. This run goes on; the next one has to make it again", error)
        return made


def cache_dir() -> Path:
    """The folder for files that can be deleted at any time: metaopt/ in `XDG_CACHE_HOME`, else in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "metaopt").expanduser()


def key_of(*parts: object) -> str:
    """A digest of anything that can be shown as text: 32 hexadecimal characters."""
    sha = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        sha.update(f"{len(text)}:".encode())
        sha.update(text)
    return sha.hexdigest()[:32]
