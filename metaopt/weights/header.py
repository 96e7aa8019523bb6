"""Headers of files: read within bounds, and checked before anything that they describe is used.

A safetensors header is JSON that lists the tensors. Its metadata holds ours, in canonical JSON: the kind of the file,
the schema, the facts, the digests of the shards and the sha256. Time and memory for a header are bounded by its size,
which is bounded itself; the tensors are not read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from ..core.errors import FileFormatError
from ..core.text import shortened, shown
from .facts import FACTS, first_violation
from .regular import MAX_TEXT, opened
from .shards import are_digests

SCHEMA = 1
KEY = "metaopt"
"""Name of our entry in the metadata of safetensors."""

MAX_TENSORS = 100_000
"""Largest number of tensors in a file, or of shards of a file [count]."""

MAX_DEPTH = 100
"""Deepest nesting of lists and objects in the metadata, so that recursive functions can read them [count]."""

COPY_AGAIN = "copy or download it again"

_MAX_DIMENSIONS = 64  # of a tensor, as in PyTorch
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""The dtypes of safetensors by name."""


class ListedTensor(NamedTuple):
    """A tensor as a header lists it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Header:
    """The checked header of a file.

    Args:
        kind: "snapshot", "checkpoint", "optimizer", "weights", ….
        facts: the facts of the kind.
        shards: digest of each shard, in order.
        sha256: digest of header and tensors.
        listed: the tensors in the file itself, by name, as safetensors lists them; those of shards are in their own
            headers.
    """

    kind: str
    facts: dict[str, Any]
    shards: list[str]
    sha256: str
    listed: dict[str, Any]

    def tensors(self, path: Path) -> dict[str, ListedTensor]:
        """Shape and dtype of each listed tensor. Each has its own bytes, so their total size is at most the file's.

        Raises:
            FileFormatError: an entry is not one of safetensors, or entries overlap.
        """
        try:
            return _listed_tensors(self.listed)
        except (ValueError, TypeError, KeyError) as error:
            raise FileFormatError(f"{path} is damaged: its list of tensors is wrong ({shown(error)})") from error

    def described(self) -> dict[str, Any]:
        """The values that the digest covers."""
        shards = {"shards": self.shards} if self.shards else {}
        return {"kind": self.kind, "schema": SCHEMA, "facts": self.facts, **shards}


def read_header(path: Path, kind: str | None = None) -> Header:
    """Read and check the header of a file quickly; the tensors are not read.

    Args:
        kind: the expected kind, whose facts are then checked; None for any.
    Raises:
        FileFormatError: the file is not regular, truncated, a pickle, not safetensors, of another kind or schema, too
            large in its header, or its facts are not those of its kind.
    """
    with opened(path, "a safetensors file") as (file, size):
        try:
            text, data = _read_json(path, file, size)
            listed = json.loads(text)
            metadata = listed.pop("__metadata__", {})
            if data != max((entry["data_offsets"][1] for entry in listed.values()), default=0):
                raise ValueError(f"it lists other tensors than those in its {data} bytes")
        except FileFormatError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise FileFormatError(
                f"{path} is truncated, damaged or not safetensors ({shown(error)}); {COPY_AGAIN}"
            ) from error
    if len(listed) > MAX_TENSORS:
        raise FileFormatError(f"{path} lists {len(listed):,} tensors; expected at most {MAX_TENSORS:,}")
    return _described(path, metadata, kind, listed)


def canonical(value: Any) -> str:
    """The only JSON text of a value that a file may contain."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def check_bounds(path: Path, description: Mapping[str, Any], tensors: int) -> None:
    """Check that readers will accept a file that is to be written.

    Raises:
        FileFormatError: its metadata are nested too deeply or too large, or it has too many tensors.
    """
    text = canonical(description)
    if tensors > MAX_TENSORS or len(text) > MAX_TEXT // 2 or not _is_shallow(text):
        raise FileFormatError(
            f"cannot write {path}: {tensors:,} tensors, and {len(text):,} characters of facts; expected at most "
            f"{MAX_TENSORS:,} tensors and {MAX_TEXT // 2:,} characters, nested at most {MAX_DEPTH} deep: "
            "store less in one file"
        )


def _read_json(path: Path, file: BinaryIO, size: int) -> tuple[bytes, int]:
    """The header of a safetensors file, and the number of bytes after it."""
    start = file.read(9)
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[8:9] != b"{":
        raise FileFormatError(
            f"{path} is a pickle (a torch.save file?), which can run any code when loaded; metaopt loads none. "
            "Expected safetensors: save the weights again with save_model_weights"
        )
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    if length > MAX_TEXT:
        raise FileFormatError(f"{path} has a header of {length:,} bytes; expected at most {MAX_TEXT:,}")
    return start[8:] + file.read(length - 1), size - 8 - length


def _listed_tensors(listed: Mapping[str, Any]) -> dict[str, ListedTensor]:
    tensors, end = {}, 0
    for name, entry in sorted(listed.items(), key=lambda item: item[1]["data_offsets"][1]):
        shape, dtype, (start, stop) = tuple(entry["shape"]), DTYPES[entry["dtype"]], entry["data_offsets"]
        if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{shown(name)} has the shape {shown(shape)}")
        if start != end or stop - start != prod(shape) * dtype.itemsize:
            raise ValueError(f"{shown(name)} of shape {shown(shape)} has the bytes {start} to {stop}")
        tensors[name], end = ListedTensor(shape, dtype), stop
    return tensors


def _described(path: Path, metadata: Any, kind: str | None, listed: dict[str, Any]) -> Header:
    """Our entry in the metadata, checked."""
    try:
        text = metadata[KEY]
        header: dict[str, Any] = json.loads(text)
        found, schema, facts, digest = header["kind"], header["schema"], header["facts"], header["sha256"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is safetensors but has no metaopt header; expected a {kind or 'metaopt'} file"
        ) from error
    if schema != SCHEMA or type(schema) is not int:
        raise FileFormatError(
            f"{path} has schema {shown(schema)}; this metaopt reads schema {SCHEMA}: use the version that wrote it"
        )
    if kind is not None and found != kind:
        raise FileFormatError(f"{path} is a {shortened(str(found), 40)} file; expected a {kind} file")
    shards = header.get("shards", [])
    known = {"kind", "schema", "facts", "shards", "sha256"}
    if not isinstance(found, str) or not isinstance(facts, dict) or not _is_shallow(text) or header.keys() - known:
        raise FileFormatError(f"{path} is damaged: its kind or its facts have another form; {COPY_AGAIN}")
    if not are_digests([digest]) or not are_digests(shards) or len(shards) > MAX_TENSORS:
        raise FileFormatError(f"{path} is damaged: its list of shards does not hold sha256 digests; {COPY_AGAIN}")
    if canonical(header) != text:  # the digest covers the parsed values, and 1E-05 parses like 1e-05
        raise FileFormatError(f"{path} is damaged: its header is not in the form that metaopt writes; {COPY_AGAIN}")
    if kind is not None and (violation := first_violation(facts, FACTS.get(kind, {}))):
        raise FileFormatError(f"{path} is not a valid {kind}: {violation}. Copy it again, or create it again")
    return Header(found, facts, shards, digest, listed)


def _is_shallow(text: str) -> bool:
    """Whether a JSON text is nested at most about `MAX_DEPTH` deep: removes innermost brackets until none is left."""
    brackets = _STRING.sub("", text).encode().translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return not brackets
