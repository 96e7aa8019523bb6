"""Tensors and facts in safetensors files: written whole or not at all, verified on reading, never unpickled.

The facts (JSON) and a sha256 over facts and tensors stand in the file's own header, so that a file needs
nothing beside it and a changed bit anywhere is noticed. `docs/formats.md` describes the bytes.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import FileFormatError, LayoutMismatch, StorageError
from .layout import Layout

SCHEMA = 1
_KEY = "metaopt"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], kind: str, facts: Mapping[str, Any]) -> None:
    """Write tensors and facts into one file, atomically.

    Args:
        path: the file; its folder is made where missing. A file that stands there is replaced as a whole.
        tensors: what to store, by name.
        kind: what the file is ("snapshot", "checkpoint", …); reading asks for it again.
        facts: anything that JSON can hold.
    Raises:
        StorageError: the disk is full or not writable; what stood at `path` is untouched.
    """
    stored = _separate(tensors)
    header = json.loads(_canonical({"kind": kind, "schema": SCHEMA, "facts": dict(facts)}))  # as it will be read
    header["sha256"] = digest_of(stored, header)
    with replacing(path) as temporary:
        save_file(stored, temporary, metadata={_KEY: _canonical(header)})


def read_tensors(path: Path, kind: str, *, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that `write_tensors` wrote, and verify every bit of it.

    Args:
        verify: whether to compare the contents with their sha256; a file that this process has read before need
            not be hashed again. The tensors are views of the file on disk: what is not touched is not loaded.
    Raises:
        FileFormatError: missing, truncated, damaged, of another kind or schema, or not safetensors at all.
    """
    with _opened(path) as file:
        header = _header(path, file.metadata(), kind)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    expected = header.pop("sha256", None)
    if verify and digest_of(tensors, header) != expected:
        raise FileFormatError(f"{path} is damaged: its contents do not have the sha256 that it states; get it anew")
    return tensors, header["facts"]


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
    """What a file is ("snapshot", "checkpoint", "optimizer", "weights").

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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; on success it replaces `path` in one step, on failure it is gone.

    Raises:
        StorageError: the disk is full or not writable.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"could not write {path}: {error}. Nothing at that place was changed; free some space or choose "
            "another folder, then run again"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
