"""Parameter groups of growth seeds in the optimizer of their host, whose own state stays as it is."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidConfig

_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")  # the last four are of torch.optim.lr_scheduler
_KEPT = (*_RATES, "base_momentum", "max_momentum", "train_mode")  # two of OneCycleLR; the mode of schedulefree


def check_groups(optimizer: torch.optim.Optimizer) -> None:
    """Check that an optimizer can take further parameters.

    Raises:
        InvalidConfig: it has one vector of all parameters, as LBFGS.
    """
    if isinstance(_base(optimizer), torch.optim.LBFGS):
        raise InvalidConfig("LBFGS takes no parameter groups, so nothing can grow; expected another base optimizer")


def add_group(optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]], lr_factor: float) -> None:
    """Add the parameters of a growth seed, with the settings of the first group.

    Settings are arguments of the optimizer's constructor, and what schedules of the learning rate and training modes
    keep in a group. All else, such as the step counter of schedulefree, is state, which begins anew.

    Args:
        named: names of the parameters in the network, and the parameters.
        lr_factor: their learning rate over that of the first group.
    """
    first, arguments = optimizer.param_groups[0], inspect.signature(type(_base(optimizer))).parameters
    settings: dict[str, Any] = {name: first[name] for name in first if name in arguments or name in _KEPT}
    for name in settings.keys() & {*_RATES}:
        settings[name] = settings[name] * lr_factor
    parameters = list(named) if "param_names" in first else [parameter for _, parameter in named]
    optimizer.add_param_group({**settings, "params": parameters})


def remove_group(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Remove the parameters of a growth seed and all that the optimizer keeps about them."""
    groups = [group for group in optimizer.param_groups if group["params"] and group["params"][0] is not parameters[0]]
    optimizer.param_groups[:] = groups
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def _base(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, or the one that a `Nowcast` contains."""
    return getattr(optimizer, "base", optimizer)
