"""The header of any safetensors file: read within bounds and checked; the tensors are not read.

A safetensors file is eight bytes of length, a JSON header of that length, and the bytes of the tensors. Time and memory
depend on the size of the header, which is bounded, and not on the size of the file. This module does not import torch,
so that `metaopt inspect` need not wait for it.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..core.errors import FileFormatError
from ..core.text import shown
from .regular import MAX_TEXT, opened

MAX_TENSORS = 100_000
"""Largest number of tensors in a file, or of shards of a file [count]."""

COPY_AGAIN = "copy or download it again"

BITS: Mapping[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "U16": 16,
    "U32": 32,
    "U64": 64,
    "I8": 8,
    "I16": 16,
    "I32": 32,
    "I64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
}
"""The dtypes of safetensors, and the size of a number of each [bits]."""

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
"""Endings of files that are mostly pickles."""

_MAX_DIMENSIONS = 64  # of a tensor, as in PyTorch


class TensorEntry(NamedTuple):
    """A tensor as a header lists it: its shape, its dtype in the words of safetensors, and the place of its bytes."""

    shape: tuple[int, ...]
    dtype: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in the file [bytes]."""
        return self.stop - self.start


@dataclass(frozen=True)
class SafetensorsHeader:
    """The header of a safetensors file.

    Attributes:
        listed: the tensors by name, as JSON; `entries` checks them.
        metadata: the entry `__metadata__`, unchecked; mostly texts by name.
        raw: the bytes of the header, with the eight bytes of its length.
        file_size: size of the file [bytes].
    """

    listed: dict[str, Any]
    metadata: Any
    raw: bytes
    file_size: int


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read the header of a safetensors file quickly.

    Raises:
        FileFormatError: the file is not regular, truncated, a pickle, not safetensors, or too large in its header.
    """
    with opened(path, "a safetensors file") as (file, size):
        try:
            raw = _read_raw(path, file, size)
            listed = json.loads(raw[8:], object_pairs_hook=without_duplicates)
            metadata = listed.pop("__metadata__", {})
            data = size - len(raw)
            if data != max((entry["data_offsets"][1] for entry in listed.values()), default=0):
                raise ValueError(f"it lists other tensors than those in its {data} bytes")
        except FileFormatError:
            raise
        except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise FileFormatError(
                f"{path} is truncated, damaged or not safetensors ({shown(error)}); {_remedy(path)}"
            ) from error
    if len(listed) > MAX_TENSORS:
        raise FileFormatError(f"{path} lists {len(listed):,} tensors; expected at most {MAX_TENSORS:,}")
    return SafetensorsHeader(listed, metadata, raw, size)


def entries(path: Path, listed: Mapping[str, Any]) -> dict[str, TensorEntry]:
    """The tensors of a header, checked. Each has its own bytes, so their total size is at most the file's.

    Raises:
        FileFormatError: an entry is not one of safetensors, or entries overlap or leave gaps.
    """
    try:
        return dict(_checked(listed))
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError(f"{path} is damaged: its list of tensors is wrong ({shown(error)})") from error


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON text, for `json.loads`.

    Raises:
        ValueError: it has a name twice, so that two readers could read two different files.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has {shown(twice)} twice")
    return found


def _read_raw(path: Path, file: BinaryIO, size: int) -> bytes:
    start = file.read(9)
    if start.startswith((b"PK\x03\x04", b"\x80")) and start[8:9] != b"{":
        raise FileFormatError(
            f"{path} is a pickle (a torch.save file?), which can run any code when loaded; metaopt loads none. "
            "Expected safetensors: save the weights again with save_model_weights or safetensors.torch.save_file"
        )
    length = int.from_bytes(start[:8], "little")
    if not 2 <= length <= size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    if length > MAX_TEXT:
        raise FileFormatError(f"{path} has a header of {length:,} bytes; expected at most {MAX_TEXT:,}")
    return start + file.read(length - 1)


def _remedy(path: Path) -> str:
    if path.suffix not in PICKLES:
        return COPY_AGAIN
    return (
        f"a {path.suffix} file is mostly a pickle, which can run any code when loaded, and metaopt loads none. "
        "Expected safetensors"
    )


def _checked(listed: Mapping[str, Any]) -> list[tuple[str, TensorEntry]]:
    found, end = [], 0
    for name, entry in sorted(listed.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        shape, dtype, (start, stop) = tuple(entry["shape"]), entry["dtype"], entry["data_offsets"]
        name.encode()  # not all texts of JSON can be written to a file
        if len(shape) > _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{shown(name)} has the shape {shown(shape)}")
        if start != end or (stop - start) * 8 != prod(shape) * BITS[dtype] or type(stop) is not int:
            raise ValueError(f"{shown(name)} of shape {shown(shape)} has the bytes {start} to {stop}")
        found.append((name, TensorEntry(shape, dtype, start, stop)))
        end = stop
    return found
