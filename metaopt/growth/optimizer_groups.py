"""Parameter groups of growth seeds in the optimizer of their host, whose own state stays as it is."""

from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidConfig


def check_groups(optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimizer can take further parameters.

    Raises:
        InvalidConfig: it has one vector of all parameters, as LBFGS.
    """
    if isinstance(getattr(optimizer, "base", optimizer), torch.optim.LBFGS):
        raise InvalidConfig("LBFGS takes no parameter groups, so nothing can grow; expected another base optimizer")


def add_group(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], lr_factor: float) -> None:
    """Add the parameters of a growth seed, with the settings of the first group.

    Args:
        lr_factor: their learning rate over that of the first group.
    """
    first = optimizer.param_groups[0]
    settings: dict[str, Any] = {name: value for name, value in first.items() if name != "params"}
    if "lr" in settings:
        settings["lr"] = settings["lr"] * lr_factor
    optimizer.add_param_group({**settings, "params": parameters})


def remove_group(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Remove the parameters of a growth seed and all that the optimizer keeps about them."""
    groups = [group for group in optimizer.param_groups if group["params"] and group["params"][0] is not parameters[0]]
    optimizer.param_groups[:] = groups
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
