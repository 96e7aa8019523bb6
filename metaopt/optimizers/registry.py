"""The registry of base optimizers."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from ..core.errors import InvalidConfig
from ..core.registry import Registry

_SCHEDULE_FREE = ("AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree")  # Defazio et al. 2024, arXiv:2405.15682


def _table() -> dict[str, str]:
    base = torch.optim.Optimizer
    ours = [
        name
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base
    ]
    return {
        **{name: f"torch.optim:{name}" for name in ours},
        **{name: f"schedulefree:{name}" for name in _SCHEDULE_FREE},
    }


class _BaseOptimizers(Registry):
    def origin(self, name: str) -> str:
        """The package that brings an optimizer, with its version."""
        if name not in self.table:
            return super().origin(name)
        package = "schedulefree" if name in _SCHEDULE_FREE else "torch"
        return f"{package} {version(package)}"


BASE_OPTIMIZERS = _BaseOptimizers("base optimizer", "metaopt.base_optimizers", _table())
"""Base optimizers by name. An outside package adds a `torch.optim.Optimizer` in the group `metaopt.base_optimizers`."""


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """Build a base optimizer by name.

    Args:
        lr: learning rate.
        options: its further keyword arguments.
    Raises:
        UnknownName: no such optimizer; the message lists the nearest names.
        InvalidConfig: an argument that it does not take.
    """
    kind = BASE_OPTIMIZERS.get(name)
    try:
        optimizer: torch.optim.Optimizer = kind(parameters, lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise InvalidConfig(
            f"{name} does not take lr={lr!r} with {dict(options)!r}: {error}. Check base_optimizer_options"
        ) from error
    if hasattr(optimizer, "train"):  # schedule-free ones start in evaluation mode
        optimizer.train()
    return optimizer


@contextmanager
def evaluation_mode(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put the weights to evaluate into the network while the block runs.

    Schedule-free optimizers train other weights than those to evaluate and swap them in `eval()`; all others have
    nothing to do.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
