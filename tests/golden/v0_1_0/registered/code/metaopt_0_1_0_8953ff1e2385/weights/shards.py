"""Large files in pieces: how tensors are divided over shards, and what the shards of a file are called.

A shard's name begins with its digest. So the shards of a file that is being replaced and the new ones stand side by
side, and the file itself, written last, decides which of them count.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

SHARD_SIZE = 256 * 2**20
"""How much the tensors of one file take at most [bytes]; a single tensor is never divided."""

_NAME = "shard_{digest:.8}_{number:05d}_of_{count:05d}_{file}"
_PREFIX = re.compile(r"shard_[0-9a-f]{8}_[0-9]{5,}_of_[0-9]{5,}_")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def divide(tensors: Mapping[str, Tensor], size: int) -> list[dict[str, Tensor]]:
    """Put tensors, in the order of their names, into parts that take `size` bytes at most.

    Returns: the parts; one where everything fits. A tensor that is larger has a part to itself.
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = size
    for name in sorted(tensors):
        if parts[-1] and tensors[name].nbytes > room:
            parts.append({})
            room = size
        parts[-1][name] = tensors[name]
        room -= tensors[name].nbytes
    return parts


def shard_path(path: Path, digest: str, number: int, count: int) -> Path:
    """Where one of `count` shards of a file stands; they are numbered from 1."""
    return path.with_name(_NAME.format(digest=digest, number=number, count=count, file=path.name))


def shard_paths(path: Path, digests: Sequence[str]) -> list[Path]:
    """Where all shards of a file stand, by the digests that it lists."""
    return [shard_path(path, digest, number, len(digests)) for number, digest in enumerate(digests, 1)]


def are_digests(value: Any) -> bool:
    """Whether a value from a header is a list of digests, of which alone the names of shards are made."""
    return isinstance(value, list) and all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in value)


def is_shard(path: Path) -> bool:
    """Whether a file is a piece of another one, by its name."""
    return _PREFIX.match(path.name) is not None


def shards_beside(path: Path) -> list[Path]:
    """Every shard of a file of this name that stands in its folder, whether or not the file lists it."""
    return [
        found
        for found in path.parent.glob("shard_*")
        if _PREFIX.match(found.name) and _PREFIX.sub("", found.name, count=1) == path.name
    ]
