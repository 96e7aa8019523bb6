"""Tensor files: safetensors with a JSON header, written atomically, verified on reading, never unpickled.

The header holds the kind of the file, its facts and a sha256 over facts and tensors, so every changed bit is detected
without a second file. Tensors that are too large for one file are stored in shards beside it, and the header lists the
sha256 of each shard. `docs/formats.md` describes the bytes.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import FileFormatError, StorageError
from ..core.moved import moved_names
from .atomic import replacing
from .shards import SHARD_SIZE, are_digests, divide, shard_path, shard_paths, shards_beside

SCHEMA = 1
_KEY = "metaopt"
_SHARD = "shard"
_COPY_AGAIN = "copy or download it again"


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    facts: Mapping[str, Any],
    *,
    shard_size: int = SHARD_SIZE,
) -> None:
    """Write tensors and facts to a file, atomically.

    Args:
        path: the file, which replaces an older one; a missing folder is created.
        tensors: by name.
        kind: type of the file ("snapshot", "checkpoint", …); reading requires the same kind.
        facts: JSON values that describe the tensors.
        shard_size: maximum size of the tensors in one file [bytes]. Above it they are divided over shards beside the
            file, which is written after them.
    Raises:
        StorageError: the disk is full or not writable; an older file is kept.
    """
    description: dict[str, Any] = {"kind": kind, "facts": dict(facts)}
    parts = divide(tensors, shard_size)
    try:
        if len(parts) > 1:
            description["shards"] = _write_shards(path, parts)
        stored = _contiguous(parts[0]) if len(parts) == 1 else {}
        _write(path, stored, _header(stored, description))
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
    tensors, header = _read(path, kind, verify)
    digests = header.get("shards", [])
    for number, digest in enumerate(digests, 1):
        shard = shard_path(path, digest, number, len(digests))
        part = _read_shard(path, shard, digest, verify)
        if not tensors.keys().isdisjoint(part):
            raise FileFormatError(f"{path} is damaged: a tensor of {shard.name} is stored twice; {_COPY_AGAIN}")
        tensors.update(part)
    return tensors, header["facts"]


def files_of(path: Path) -> list[Path]:
    """A file and its shards, in order: all that must be copied together.

    Raises:
        FileFormatError: as for `read_facts`.
    """
    with _opened(path) as file:
        return [path, *shard_paths(path, _read_header(path, file.metadata(), None).get("shards", []))]


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
    with _opened(path) as file:
        return _read_header(path, file.metadata(), kind)["facts"]


def read_digest(path: Path, kind: str) -> str:
    """Read the sha256 in a file's header quickly, without verification.

    Raises:
        FileFormatError: as for `read_facts`.
    """
    with _opened(path) as file:
        return str(_read_header(path, file.metadata(), kind).get("sha256"))


def kind_of(path: Path) -> str:
    """The kind of a file: "snapshot", "checkpoint", "optimizer", "weights", ….

    Raises:
        FileFormatError: the file was not written by metaopt.
    """
    with _opened(path) as file:
        return str(_read_header(path, file.metadata(), None)["kind"])


def _write_shards(path: Path, parts: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """Write the shards of a file, one in memory at a time, and return their digests."""
    return [_write_shard(path, part, number, len(parts)) for number, part in enumerate(parts, 1)]


def _write_shard(path: Path, part: Mapping[str, Tensor], number: int, count: int) -> str:
    tensors = _contiguous(part)
    header = _header(tensors, {"kind": _SHARD, "facts": {}})
    _write(shard_path(path, header["sha256"], number, count), tensors, header)
    return str(header["sha256"])


def _header(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> dict[str, Any]:
    """The description as JSON returns it, with the schema and the digest."""
    header: dict[str, Any] = json.loads(_canonical({**description, "schema": SCHEMA}))
    return {**header, "sha256": digest_of(tensors, header)}


def _write(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: _canonical(header)})


def _read(path: Path, kind: str, verify: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of one file, without its shards."""
    with _opened(path) as file:
        header = _read_header(path, file.metadata(), kind)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    digest = header.pop("sha256", None)
    if verify and digest_of(tensors, header) != digest:
        raise FileFormatError(f"{path} is damaged: its contents do not match the sha256 in its header; {_COPY_AGAIN}")
    return tensors, {**header, "sha256": digest}


def _read_shard(path: Path, shard: Path, digest: str, verify: bool) -> dict[str, Tensor]:
    try:
        tensors, header = _read(shard, _SHARD, verify)
    except FileFormatError as error:
        raise FileFormatError(f"{path} lacks a shard: {error}") from error
    if header["sha256"] != digest:
        raise FileFormatError(f"{shard} is not the shard that {path.name} lists; copy both again")
    return tensors


def _remove_unlisted_shards(path: Path) -> None:
    """Remove the shards of an older file, or of an unfinished one."""
    with contextlib.suppress(OSError, FileFormatError):
        if beside := shards_beside(path):
            listed = files_of(path) if path.exists() else []
            for shard in set(beside) - set(listed):
                shard.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror}; expected a safetensors file") from error
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[8:9] != b"{":
        raise FileFormatError(
            f"{path} is a pickle (a torch.save file?), which can run any code when loaded; metaopt loads none. "
            "Expected safetensors: save the weights again with save_model_weights"
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise FileFormatError(f"{path} is truncated, damaged or not safetensors ({error}); {_COPY_AGAIN}") from error


def _read_header(path: Path, metadata: Mapping[str, str] | None, kind: str | None) -> dict[str, Any]:
    try:
        text = (metadata or {})[_KEY]
        header: dict[str, Any] = json.loads(text)
        found, schema, facts = header["kind"], header["schema"], header["facts"]
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"{path} is safetensors but has no metaopt header; expected a {kind or 'metaopt'} file"
        ) from error
    if schema != SCHEMA:
        raise FileFormatError(
            f"{path} has schema {schema}; this metaopt reads schema {SCHEMA}: use the version that wrote it"
        )
    if kind is not None and found != kind:
        raise FileFormatError(f"{path} is a {found} file; expected a {kind} file")
    if not isinstance(facts, dict):
        raise FileFormatError(f"{path} is damaged: its facts are {type(facts).__name__}")
    if not are_digests(header.get("shards", [])):
        raise FileFormatError(f"{path} is damaged: its list of shards does not hold sha256 digests; {_COPY_AGAIN}")
    if _canonical(header) != text:  # the digest covers the parsed values, and 1E-05 parses like 1e-05
        raise FileFormatError(f"{path} is damaged: its header is not in the form that metaopt writes; {_COPY_AGAIN}")
    return header


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


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """The sha256 of tensors, their names and a JSON value."""
    digest = hashlib.sha256(_canonical(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
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
