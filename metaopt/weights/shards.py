"""Shards of large files: grouping of tensors into shards, and names of the shards.

The name of a shard contains the start of its digest, so old and new shards can coexist in a folder while a file is
replaced. The main file is written last and lists the digests of the valid shards.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SHARD_SIZE = 256 * 2**20
"""Maximum total size of the tensors in one shard [bytes]. A larger tensor is not split."""

_NAME = "shard_{digest:.8}_{number:05d}_of_{count:05d}_{file}"
_PREFIX = re.compile(r"shard_[0-9a-f]{8}_[0-9]{5,}_of_[0-9]{5,}_")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def divide(tensors: "Mapping[str, Tensor]", size: int) -> "list[dict[str, Tensor]]":
    """Group tensors, sorted by name, into parts of at most `size` bytes.

    Returns: the parts. A tensor of more than `size` bytes is alone in its part.
    """
    parts: list[dict[str, Tensor]] = [{}]
    remaining = size
    for name in sorted(tensors):
        if parts[-1] and tensors[name].nbytes > remaining:
            parts.append({})
            remaining = size
        parts[-1][name] = tensors[name]
        remaining -= tensors[name].nbytes
    return parts


def shard_path(path: Path, digest: str, number: int, count: int) -> Path:
    """Path of shard `number` of `count` of a file. Shards are numbered from 1."""
    return path.with_name(_NAME.format(digest=digest, number=number, count=count, file=path.name))


def shard_paths(path: Path, digests: Sequence[str]) -> list[Path]:
    """Paths of all shards of a file, given the digests in its header."""
    return [shard_path(path, digest, number, len(digests)) for number, digest in enumerate(digests, 1)]


def are_digests(value: Any) -> bool:
    """Whether an untrusted value from a header is a list of sha256 digests, which are safe to use in file names."""
    return isinstance(value, list) and all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in value)


def is_shard(path: Path) -> bool:
    """Whether a path has the name of a shard."""
    return _PREFIX.match(path.name) is not None


def main_file(path: Path) -> Path | None:
    """The file to which a path with the name of a shard belongs; None for other names."""
    return path.with_name(_PREFIX.sub("", path.name, count=1)) if is_shard(path) else None


def shards_beside(path: Path) -> list[Path]:
    """All shards of a file in the file's folder, including those that the file does not list."""
    return [
        found
        for found in path.parent.glob("shard_*")
        if _PREFIX.match(found.name) and _PREFIX.sub("", found.name, count=1) == path.name
    ]
