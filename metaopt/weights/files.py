"""Tensor files: safetensors with a JSON header, written atomically, verified on reading, never unpickled.

The header holds the kind of the file, its facts and a sha256 over facts and tensors, so every changed bit is detected
without a second file. Tensors that are too large for one file are stored in shards beside it, and the header lists the
sha256 of each shard. `docs/formats.md` describes the bytes.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import FileFormatError, StorageError
from ..core.moved import moved_names
from .atomic import replacing
from .header import KEY, SCHEMA, SHARD, Header, canonical, check_bounds, read_header, shard_headers
from .listed import ListedTensor, listed_tensors
from .safetensors_header import COPY_AGAIN
from .shards import SHARD_SIZE, divide, shard_path, shard_paths, shards_beside


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    facts: Mapping[str, Any],
    *,
    shard_size: int = SHARD_SIZE,
    before_rename: Callable[[Path], None] | None = None,
) -> None:
    """Write tensors and facts to a file, atomically.

    Args:
        path: the file, which replaces an older one; a missing folder is created.
        tensors: by name.
        kind: type of the file ("snapshot", "checkpoint", …); reading requires the same kind.
        facts: JSON values that describe the tensors.
        shard_size: maximum size of the tensors in one file [bytes]. Above it they are divided over shards beside the
            file, which is written after them.
        before_rename: called with the complete file under its temporary name, its shards already in place.
    Raises:
        StorageError: the disk is full or not writable; an older file is kept.
        FileFormatError: the facts are nested too deeply or too large to be read again; nothing is written.
    """
    description: dict[str, Any] = {"kind": kind, "facts": dict(facts)}
    check_bounds(path, description, len(tensors))
    parts = divide(tensors, shard_size)
    try:
        if len(parts) > 1:
            description["shards"] = _write_shards(path, parts)
        stored = _contiguous(parts[0]) if len(parts) == 1 else {}
        _write(path, stored, _header(stored, description), before_rename)
    finally:
        _remove_unlisted_shards(path)


def read_tensors(path: Path, kind: str, *, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_tensors` with its shards, and verify every bit.

    The tensors are memory-mapped: weights are loaded on first access.

    Args:
        verify: whether to compare the contents with their sha256; False for a file that was verified before.
    Returns: the tensors by name, and the facts.
    Raises:
        FileFormatError: the file or a shard is missing, truncated, damaged, of another kind or schema, or not
            safetensors; or a shard is not the listed one.
    """
    header = read_header(path, kind)
    tensors = _read(path, header, verify)
    for shard, part in shard_headers(path, header):
        try:
            tensors |= _read(shard, part, verify)
        except FileFormatError as error:
            raise FileFormatError(f"{path} lacks a shard: {error}") from error
    return tensors, header.facts


def files_of(path: Path) -> list[Path]:
    """A file and its shards, in order: all that must be copied together.

    Raises:
        FileFormatError: as for `read_facts`.
    """
    return [path, *shard_paths(path, read_header(path).shards)]


def remove_file(path: Path) -> None:
    """Remove a file, then its shards: no file is ever left without a shard.

    Raises:
        StorageError: the file cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"could not remove {path}: {error}; make its folder writable, then run again") from error
    _remove_unlisted_shards(path)


def read_facts(path: Path, kind: str) -> dict[str, Any]:
    """Read the facts of a file of any size quickly, without verification.

    Raises:
        FileFormatError: as for `read_tensors`, apart from damage to the tensors.
    """
    return read_header(path, kind).facts


def read_listed(path: Path, kind: str) -> tuple[dict[str, ListedTensor], dict[str, Any]]:
    """Read shapes and dtypes of the tensors of a file and its shards, and the facts, quickly and without verification.

    Raises:
        FileFormatError: as for `read_tensors`, apart from damage to the tensors.
    """
    header = read_header(path, kind)
    listed = listed_tensors(path, header.listed)
    for shard, part in shard_headers(path, header):
        listed |= listed_tensors(shard, part.listed)
    return listed, header.facts


def read_digest(path: Path, kind: str) -> str:
    """Read the sha256 in a file's header quickly, without verification.

    Raises:
        FileFormatError: as for `read_facts`.
    """
    return read_header(path, kind).sha256


def kind_of(path: Path) -> str:
    """The kind of a file: "snapshot", "checkpoint", "optimizer", "weights", ….

    Raises:
        FileFormatError: the file was not written by metaopt.
    """
    return read_header(path).kind


def _write_shards(path: Path, parts: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """Write the shards of a file, one in memory at a time, and return their digests."""
    return [_write_shard(path, part, number, len(parts)) for number, part in enumerate(parts, 1)]


def _write_shard(path: Path, part: Mapping[str, Tensor], number: int, count: int) -> str:
    tensors = _contiguous(part)
    header = _header(tensors, {"kind": SHARD, "facts": {}})
    _write(shard_path(path, header["sha256"], number, count), tensors, header)
    return str(header["sha256"])


def _header(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Any]:
    """The description as JSON returns it, with the schema and the digest."""
    header: dict[str, Any] = json.loads(canonical({**description, "schema": SCHEMA}))
    return {**header, "sha256": digest_of(tensors, header)}


def _write(
    path: Path,
    tensors: dict[str, Tensor],
    header: Mapping[str, Any],
    before_rename: Callable[[Path], None] | None = None,
) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: canonical(header)})
        if before_rename is not None:
            before_rename(temporary)


def _read(path: Path, header: Header, verify: bool) -> dict[str, Tensor]:
    """The tensors of one file, without its shards."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in header.listed}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is truncated, damaged or not safetensors ({error}); {COPY_AGAIN}") from error
    if verify and digest_of(tensors, header.described()) != header.sha256:
        raise FileFormatError(f"{path} is damaged: its contents do not match the sha256 in its header; {COPY_AGAIN}")
    return tensors


def _remove_unlisted_shards(path: Path) -> None:
    """Remove the shards of an older file, or of an unfinished one."""
    with contextlib.suppress(OSError, FileFormatError):
        if beside := shards_beside(path):
            listed = files_of(path) if path.exists() else []
            for shard in set(beside) - set(listed):
                shard.unlink(missing_ok=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each contiguous and in its own memory, as safetensors requires."""
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        stored[name] = value.clone() if storage in seen else value
        seen.add(storage)
    return stored


def digest_of(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """The sha256 of tensors, their names and a JSON value."""
    digest = hashlib.sha256(canonical(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


__getattr__ = moved_names(
    __name__,
    {
        "load_model_weights": "metaopt.weights.model_files:load_model_weights",
        "replacing": "metaopt.weights.atomic:replacing",
        "save_model_weights": "metaopt.weights.model_files:save_model_weights",
        "unique_state": "metaopt.weights.model_files:unique_state",
        "write_text": "metaopt.weights.atomic:write_text",
    },
)
