"""Registry of base optimizers: the optimizers of `torch.optim`, Schedule-Free optimizers, and plug-ins."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidConfig
from ..core.registry import Registry
from ..core.text import shown

_SCHEDULE_FREE = ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree")  # Defazio et al. 2024, arXiv:2405.15682


def _table() -> dict[str, str]:
    base = torch.optim.Optimizer
    of_torch = [
        name
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
    ]
    return {
        **{name: f"torch.optim:{name}" for name in of_torch},
        **{name: f"schedulefree:{name}" for name in _SCHEDULE_FREE},
    }


class _BaseOptimizers(Registry):
    def origin(self, name: str) -> str:
        """The package that provides an optimizer, with its version."""
        if name not in self.table:
            return super().origin(name)
        package = "schedulefree" if name in _SCHEDULE_FREE else "torch"
        return f"{package} {version(package)}"


BASE_OPTIMIZERS = _BaseOptimizers("base optimizer", "metaopt.base_optimizers", _table())
"""Base optimizers by name; a plug-in adds a `torch.optim.Optimizer` in the group `metaopt.base_optimizers`."""


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Build a base optimizer by name.

        import torch
        from metaopt.optimizers import build_optimizer

        model = torch.nn.Linear(3, 2)
        optimizer = build_optimizer("AdamW", model.parameters(), lr=1e-3, options={"weight_decay": 0.1})

    Args:
        lr: learning rate.
        options: further keyword arguments of the optimizer; `metaopt list optimizers NAME` shows them.
    Returns: the optimizer, in training mode if it is schedule-free.
    Raises:
        UnknownName: there is no such optimizer; the message lists the nearest names.
        InvalidConfig: an unknown option, or an invalid value.
    """
    kind = BASE_OPTIMIZERS.get(name)
    try:
        optimizer: torch.optim.Optimizer = kind(parameters, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(
            f"{name} does not take lr={shown(lr)} with {shown(dict(options))}: {error}. Check base_optimizer_options"
        ) from error
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


@contextmanager
def evaluation_mode(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put the weights for evaluation into the network while the block runs.

    A schedule-free optimizer computes gradients at the weights y and is evaluated at the weights x (Defazio et al.
    2024, arXiv:2405.15682); its `eval()` and `train()` exchange the two. Other optimizers leave the weights unchanged.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trained = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
        with torch.no_grad():  # the exchange rounds: how often weights are evaluated must not change the training
            for parameter, value in zip(parameters, trained, strict=True):
                parameter.copy_(value)
