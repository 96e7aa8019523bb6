"""Selects the trainable weights of a network, and checks that they can be part of a flat vector."""

import re

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown

_SHOWN = 6  # names in a message


def trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a network that require a gradient, without duplicates, in the order of `named_parameters`."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def check_trainable(model: nn.Module) -> None:
    """Check that every trainable weight can be recorded, forecast and written back, before the first step.

    Raises:
        LayoutMismatch: there are none, or one is lazy, sharded, sparse, empty, or not of a floating-point dtype.
    """
    if not trainable(model):
        raise LayoutMismatch(f"{type(model).__name__} has no trainable weights; set requires_grad on some of them")
    for name, parameter in trainable(model):
        if problem := _problem(parameter):
            raise LayoutMismatch(f"{name} of {type(model).__name__} {problem}")


def _problem(weights: Tensor) -> str | None:
    """Why a tensor cannot be part of a flat vector of weights, and what to do; None if it can."""
    if is_lazy(weights):
        return "is lazy: it has no shape yet. Run a batch through the network first"
    values: object = weights.data
    if is_traceable_wrapper_subclass(values):
        return (
            f"is a {type(values).__name__}: its values are sharded over processes or encoded. Use "
            "DistributedDataParallel in place of FSDP, plain tensors in place of quantised ones, or freeze it with "
            "requires_grad_(False)"
        )
    if weights.layout is not torch.strided:
        return f"is sparse ({weights.layout}). Make it dense with to_dense(), or freeze it with requires_grad_(False)"
    if not weights.is_floating_point():
        return (
            f"has the dtype {weights.dtype}; expected a real floating-point one. Keep a complex weight as a real one "
            "with torch.view_as_real, and apply torch.view_as_complex where it is used"
        )
    if not weights.numel():
        return f"is empty (shape {tuple(weights.shape)}). Remove it, or freeze it with requires_grad_(False)"
    return None


def train_only(model: nn.Module, pattern: str | None) -> None:
    """Freeze the trainable weights whose names do not match a regular expression.

    Args:
        model: changed in place.
        pattern: searched for anywhere in a name, such as `lora_|head`; None freezes nothing.
    Raises:
        InvalidConfig: no name matches.
    """
    if pattern is None:
        return
    names = [name for name, _ in trainable(model)]
    if not any(re.search(pattern, name) for name in names):
        more = " …" if len(names) > _SHOWN else ""
        raise InvalidConfig(
            f"space is {shown(pattern)}, which matches none of the {len(names):,} trainable weights of "
            f"{type(model).__name__}: {', '.join(names[:_SHOWN])}{more}"
        )
    for name, parameter in trainable(model):
        parameter.requires_grad_(re.search(pattern, name) is not None)
