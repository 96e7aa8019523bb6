"""Checks the state of a base optimizer from a file before the optimizer loads it.

`torch.optim.Optimizer.load_state_dict` accepts tensors of any shape and options of any type, and the next step fails or
is silently wrong.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import CheckpointError
from ..core.text import shown
from ..nested.levels import check_levels_state
from .matrix import MatrixOptimizer

_FACTORED = {"row_var", "col_var"}  # of Adafactor: statistics of rows and columns


def check_optimizer_state(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Check that a state, as of `state_dict`, is one of this optimizer and of its parameters.

    Options must have the types of the optimizer's own and be finite. Tensors of optimizers of PyTorch must have one
    element or the shape of their parameter; those of others must not be larger than all parameters, or than a deep
    optimizer states.

    Raises:
        CheckpointError: it is not; the message has the first difference.
    """
    current = optimizer.state_dict()["param_groups"]
    groups, states = _entry(state, "param_groups", list), _entry(state, "state", dict)
    check_levels_state(optimizer, state)
    if len(groups) != len(current):
        raise CheckpointError(f"its base optimizer has {len(groups)} groups of parameters, expected {len(current)}")
    for expected, found in zip(current, groups, strict=True):
        if not isinstance(found, Mapping) or found.get("params") != expected["params"]:
            raise CheckpointError(f"its base optimizer has the group {shown(found)}, expected {shown(expected)}")
        for name, value in expected.items():
            if name not in found or not _alike(value, found[name]):
                raise CheckpointError(
                    f"its base optimizer has {name} {shown(found.get(name))}, expected a value such as {shown(value)}"
                )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    exact = type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, torch.optim.LBFGS)
    most = sum(parameter.numel() for parameter in parameters)
    if isinstance(optimizer, MatrixOptimizer):
        most = max(most, optimizer.largest_state())
    for index, values in states.items():
        if not isinstance(index, int) or not 0 <= index < len(parameters) or not isinstance(values, Mapping):
            raise CheckpointError(f"its base optimizer has a state of parameter {shown(index)} of {len(parameters)}")
        for name, value in values.items():
            _check_tensor(name, value, parameters[index], most, exact and name not in _FACTORED)


def _entry(state: Any, name: str, kind: type) -> Any:
    if not isinstance(state, Mapping) or not isinstance(state.get(name), kind):
        raise CheckpointError(f"its base optimizer has no valid {name}")
    return state[name]


def _alike(expected: Any, found: Any) -> bool:
    """Whether a value can be an option where another one is: of the same type, numbers finite."""
    if isinstance(expected, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(expected)
            and all(_alike(one, other) for one, other in zip(expected, found, strict=True))
        )
    if isinstance(expected, bool) or isinstance(found, bool):
        return isinstance(found, bool) and (expected is None or isinstance(expected, bool))
    if isinstance(expected, int | float) and isinstance(found, int | float):
        return math.isfinite(found) or found == expected
    return expected is None or type(expected) is type(found)


def _check_tensor(name: Any, value: Any, parameter: Tensor, most: int, exact: bool) -> None:
    """Check the size of a tensor of an optimizer; other values are left to the optimizer."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return
    if value.numel() > most or (exact and value.shape != parameter.shape):
        raise CheckpointError(
            f"its base optimizer has {shown(name)} of shape {tuple(value.shape)}, for a parameter of shape "
            f"{tuple(parameter.shape)}"
        )
