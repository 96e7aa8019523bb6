"""Cache of preprocessed data: tensors and JSON in the user's cache folder, written once and then memory-mapped."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..core.errors import FileFormatError, StorageError
from ..core.folders import cache_dir as cache_dir
from ..core.moved import moved_names
from ..weights.files import read_tensors, write_tensors

log = logging.getLogger(__name__)

__getattr__ = moved_names(
    __name__, {"Made": "metaopt.tasks.cache:CacheEntry", "key_of": "metaopt.tasks.cache:cache_key"}
)


class CacheEntry(NamedTuple):
    """The content of a cache file."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    """Values that JSON can represent."""


def cached(name: str, key: str, make: Callable[[], CacheEntry], folder: Path | None = None) -> CacheEntry:
    """The result of `make`, read from the cache if it is there.

        tensors, facts = cached("squares", cache_key(1000), lambda: CacheEntry({"n": torch.arange(1000) ** 2}, {}))

    Tensors are memory-mapped: the parts that are not read are not loaded. A damaged file, and one of another key, is
    computed again. If the cache cannot be written, the computed result is returned with a warning.

    Args:
        name: beginning of the file name.
        key: from `cache_key`; must change whenever the result of `make` would.
        folder: of the file; by default the user's cache folder.
    """
    path, kind = (folder or cache_dir()) / f"{name}-{key}.safetensors", f"cache {name}-{key}"
    if os.path.lexists(path):  # unlike Path.exists, no error where the folder cannot be entered
        try:
            return CacheEntry(*read_tensors(path, kind))
        except FileFormatError as error:
            log.warning("%s. It is computed again", error)
    entry = make()
    try:
        write_tensors(path, entry.tensors, kind, entry.facts)
        return CacheEntry(*read_tensors(path, kind, verify=False))
    except (FileFormatError, StorageError) as error:
        log.warning("%s. This run continues without the cache; the next run computes it again", error)
        return entry


def cache_key(*parts: object) -> str:
    """A digest of the `str()` of each part: 32 hexadecimal characters."""
    sha = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        sha.update(f"{len(text)}:".encode())
        sha.update(text)
    return sha.hexdigest()[:32]
