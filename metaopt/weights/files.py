"""Tensors and facts in safetensors files: written whole or not at all, verified on reading, never unpickled.

The facts (JSON) and a sha256 over facts and tensors stand in the file's own header, so that a file needs
nothing beside it and a changed bit anywhere is noticed. Where the tensors take too much for one file, they stand in
shards beside it, and the header lists the sha256 of each. `docs/formats.md` describes the bytes.
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
from torch import Tensor, nn

from ..core.errors import FileFormatError, LayoutMismatch, StorageError
from .atomic import replacing, write_text
from .layout import Layout
from .shards import SHARD_SIZE, are_digests, divide, shard_path, shard_paths, shards_beside

__all__ = [
    "digest_of",
    "files_of",
    "kind_of",
    "layout_of",
    "load_model_weights",
    "read_digest",
    "read_facts",
    "read_tensors",
    "remove_file",
    "replacing",
    "save_model_weights",
    "unique_state",
    "write_tensors",
    "write_text",
]

SCHEMA = 1
_KEY = "metaopt"
_SHARD = "shard"


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    kind: str,
    facts: Mapping[str, Any],
    *,
    shard_size: int = SHARD_SIZE,
) -> None:
    """Write tensors and facts into a file, atomically.

    Args:
        path: the file; its folder is made where missing. A file that stands there is replaced as a whole.
        tensors: what to store, by name.
        kind: what the file is ("snapshot", "checkpoint", …); reading asks for it again.
        facts: anything that JSON can hold.
        shard_size: what the tensors of one file may take [bytes]. What takes more is divided over shards beside
            the file; the file is written after them and stands for the whole.
    Raises:
        StorageError: the disk is full or not writable; what stood at `path` is untouched.
    """
    described: dict[str, Any] = {"kind": kind, "facts": dict(facts)}
    parts = divide(tensors, shard_size)
    try:
        if len(parts) > 1:
            described["shards"] = _write_shards(path, parts)
        stored = _separate(parts[0]) if len(parts) == 1 else {}
        _write(path, stored, _sealed(stored, described))
    finally:
        _sweep(path)


def read_tensors(path: Path, kind: str, *, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that `write_tensors` wrote, with its shards, and verify every bit of it.

    Args:
        verify: whether to compare the contents with their sha256; a file that this process has read before need
            not be hashed again. The tensors are views of the file on disk: what is not touched is not loaded.
    Raises:
        FileFormatError: missing, truncated, damaged, of another kind or schema, or not safetensors at all; or this
            holds for a shard, or it is not the one that the file lists.
    """
    tensors, header = _read(path, kind, verify)
    digests = header.get("shards", [])
    for number, digest in enumerate(digests, 1):
        shard = shard_path(path, digest, number, len(digests))
        part = _read_shard(path, shard, digest, verify)
        if not tensors.keys().isdisjoint(part):
            raise FileFormatError(f"{path} is damaged: a tensor of {shard.name} stands elsewhere, too; get it anew")
        tensors.update(part)
    return tensors, header["facts"]


def files_of(path: Path) -> list[Path]:
    """A file and its shards, in order: everything that belongs together when it is copied.

    Raises:
        FileFormatError: as for `read_facts`.
    """
    with _opened(path) as file:
        return [path, *shard_paths(path, _header(path, file.metadata(), None).get("shards", []))]


def remove_file(path: Path) -> None:
    """Remove a file and its shards; it goes first, so that there is never one that lacks a shard.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"could not remove {path}: {error}; make its folder writable, then run again") from error
    _sweep(path)


def read_facts(path: Path, kind: str) -> dict[str, Any]:
    """Read only the facts of a file: quick, whatever its size, and not verified.

    Raises:
        FileFormatError: as for `read_tensors`, apart from damage to the tensors.
    """
    with _opened(path) as file:
        return _header(path, file.metadata(), kind)["facts"]


def read_digest(path: Path, kind: str) -> str:
    """The sha256 that a file states of itself: quick, and not verified.

    Raises:
        FileFormatError: as for `read_facts`.
    """
    with _opened(path) as file:
        return str(_header(path, file.metadata(), kind).get("sha256"))


def kind_of(path: Path) -> str:
    """What a file is ("snapshot", "checkpoint", "optimizer", "weights", …).

    Raises:
        FileFormatError: it is not one of ours.
    """
    with _opened(path) as file:
        return str(_header(path, file.metadata(), None)["kind"])


def save_model_weights(model: nn.Module, filepath: Path | str) -> None:
    """Save all weights and buffers of a network as safetensors; tied weights once.

    Raises:
        StorageError: the file could not be written; what stood there is untouched.
    """
    write_tensors(Path(filepath), unique_state(model), "weights", {"model": type(model).__name__})


def load_model_weights(model: nn.Module, filepath: Path | str) -> None:
    """Load weights and buffers that were saved from, recorded of, or generated for such a network.

    Raises:
        FileFormatError: the file is damaged or is not safetensors.
        LayoutMismatch: names or shapes are not the network's; the network is then unchanged.
    """
    path = Path(filepath)
    tensors, _ = read_tensors(path, kind_of(path))
    state = unique_state(model)
    for name in [*state, *tensors]:
        if name not in state or name not in tensors:
            where = "the file" if name not in tensors else type(model).__name__
            raise LayoutMismatch(f"{path} does not fit {type(model).__name__}: {where} has no {name!r}")
        if state[name].shape != tensors[name].shape:
            raise LayoutMismatch(
                f"{path} does not fit {type(model).__name__}: {name} has shape {tuple(tensors[name].shape)}, "
                f"the network expects {tuple(state[name].shape)}"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[name])


def unique_state(model: nn.Module) -> dict[str, Tensor]:
    """A network's parameters and persistent buffers by name, a tensor with several names once."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach()
    return state


def layout_of(facts: Mapping[str, Any]) -> Layout:
    """The layout that a snapshot's facts state.

    Raises:
        LayoutMismatch: they state none, or nonsense.
    """
    return Layout.from_list(facts.get("layout"))


def _write_shards(path: Path, parts: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """Write the shards of a file, one in memory at a time; the digests that the file is to list."""
    return [_write_shard(path, part, number, len(parts)) for number, part in enumerate(parts, 1)]


def _write_shard(path: Path, part: Mapping[str, Tensor], number: int, count: int) -> str:
    tensors = _separate(part)
    header = _sealed(tensors, {"kind": _SHARD, "facts": {}})
    _write(shard_path(path, header["sha256"], number, count), tensors, header)
    return str(header["sha256"])


def _sealed(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> dict[str, Any]:
    """A file's header: what describes it, as it will be read, with the schema and the digest."""
    header: dict[str, Any] = json.loads(_canonical({**described, "schema": SCHEMA}))
    return {**header, "sha256": digest_of(tensors, header)}


def _write(path: Path, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: _canonical(header)})


def _read(path: Path, kind: str, verify: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of one file, shards left aside."""
    with _opened(path) as file:
        header = _header(path, file.metadata(), kind)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    stated = header.pop("sha256", None)
    if verify and digest_of(tensors, header) != stated:
        raise FileFormatError(f"{path} is damaged: its contents do not have the sha256 that it states; get it anew")
    return tensors, {**header, "sha256": stated}


def _read_shard(path: Path, shard: Path, digest: str, verify: bool) -> dict[str, Tensor]:
    try:
        tensors, header = _read(shard, _SHARD, verify)
    except FileFormatError as error:
        raise FileFormatError(f"{path} lacks a shard: {error}") from error
    if header["sha256"] != digest:
        raise FileFormatError(f"{shard} is not the shard that {path.name} lists; get both anew")
    return tensors


def _sweep(path: Path) -> None:
    """Remove shards that the file does not list: those of the one before it, or of one that was never finished."""
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
            f"{path} is a pickle (a torch.save file?), which can run any code when loaded; metaopt never does. "
            "Expected safetensors: save the weights again with save_model_weights"
        )
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise FileFormatError(f"{path} is truncated, damaged or not safetensors ({error}); get it anew") from error


def _header(path: Path, metadata: Mapping[str, str] | None, kind: str | None) -> dict[str, Any]:
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
        raise FileFormatError(f"{path} is damaged: what it lists as its shards are not sha256; get it anew")
    if _canonical(header) != text:  # the digest covers what the header means, and 1E-05 means 1e-05
        raise FileFormatError(f"{path} is damaged: its header is not as metaopt writes it; get it anew")
    return header


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, each contiguous and in memory of its own, as safetensors wants them."""
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
    """The sha256 of tensors, with their names, and of anything that JSON can hold."""
    digest = hashlib.sha256(_canonical(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_canonical([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
