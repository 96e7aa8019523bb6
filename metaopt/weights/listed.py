"""The tensors that a header lists, with the dtypes of PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..core.errors import FileFormatError
from .safetensors_header import entries

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
"""The dtypes of safetensors that PyTorch has, by name."""


class ListedTensor(NamedTuple):
    """A tensor as a header lists it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def listed_tensors(path: Path, listed: Mapping[str, Any]) -> dict[str, ListedTensor]:
    """Shape and dtype of each tensor in a header.

    Raises:
        FileFormatError: as for `entries`; or PyTorch has no such dtype.
    """
    found = entries(path, listed)
    for name, entry in found.items():
        if entry.dtype not in DTYPES:
            raise FileFormatError(f"{path} has the tensor {name!r} of dtype {entry.dtype}, which PyTorch cannot read")
    return {name: ListedTensor(entry.shape, DTYPES[entry.dtype]) for name, entry in found.items()}
