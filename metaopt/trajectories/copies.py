"""Copies of a network's tensors, as its snapshots store them."""

from typing import Any

import torch
from torch import Tensor

from ..errors import Diverged, InvalidConfig
from ..registry import suggest
from ..weights.finite import is_finite

SNAPSHOT_DTYPES = ("float32", "bfloat16", "float16")
"""What trainable weights can be stored in; "float32" leaves them as they are."""


def storage_dtype(name: str) -> torch.dtype | None:
    """What weights of a wider dtype are converted to, by a name of `SNAPSHOT_DTYPES`; None for nothing.

    Raises:
        InvalidConfig: snapshots know no such dtype.
    """
    if name not in SNAPSHOT_DTYPES:
        raise InvalidConfig(f"the dtype of snapshots is {name!r}: {suggest(name, SNAPSHOT_DTYPES)}")
    return None if name == "float32" else getattr(torch, name)


def stored_copy(name: str, tensor: Tensor, dtype: torch.dtype | None, step: int) -> Tensor:
    """A tensor on the CPU, in memory of its own, converted where it is wider than `dtype`.

    Raises:
        Diverged: a value is not finite.
        InvalidConfig: a value is too large for `dtype`.
    """
    narrower = dtype is not None and tensor.is_floating_point() and dtype.itemsize < tensor.dtype.itemsize
    stored = tensor.to(dtype) if narrower else tensor  # before it leaves the device: there is less to move
    if not is_finite(stored):
        if not is_finite(tensor):
            raise Diverged(f"{name} is no longer finite at step {step}")
        other = "bfloat16" if dtype == torch.float16 else "float32"
        raise InvalidConfig(
            f"{name} holds {tensor.abs().max():.4g} at step {step}, more than {_name(dtype)} can; record the snapshots "
            f"in {other}"
        )
    return stored.to("cpu", copy=stored is tensor)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
