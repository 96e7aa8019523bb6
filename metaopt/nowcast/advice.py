"""Warnings about a missing guard, BatchNorm statistics, and a guard in training mode; once per `Nowcast`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from .statistics import has_statistics

log = logging.getLogger(__name__)


def warn_of_missing_functions(model: nn.Module, *, guard: bool, statistics: bool) -> None:
    """Warn if there is no guard, or if BatchNorm statistics would not be updated after a nowcast.

    Args:
        model: the network.
        guard: whether a guard was given.
        statistics: whether BatchNorm statistics are estimated again.
    """
    if not guard:
        log.warning(
            "Nowcast has no guard: every finite forecast is accepted, also one that increases the loss. Give "
            "guard=metaopt.guard_from(held_out_data, loss)"
        )
    if not statistics and has_statistics(model):
        log.warning(
            "%s has BatchNorm layers, whose running statistics do not fit the weights after a nowcast. Set "
            "batchnorm_batches=8, or give reestimate=lambda: metaopt.reestimate_batchnorm(model, batches)",
            type(model).__name__,
        )


def warn_of_stale_statistics(problem: str) -> None:
    """Warn that BatchNorm statistics cannot be estimated again.

    Args:
        problem: why.
    """
    log.warning(
        "the running statistics of BatchNorm layers do not fit the weights after a nowcast, and cannot be estimated "
        "again: %s. Give reestimate=lambda: metaopt.reestimate_batchnorm(model, batches)",
        problem,
    )


@contextmanager
def warned_of_training_mode(model: nn.Module) -> Iterator[None]:
    """Warn if dropout or BatchNorm layers of a network are used in training mode inside the block."""
    layers = [layer for layer in model.modules() if isinstance(layer, _DropoutNd | _BatchNorm)]
    seen: set[str] = set()

    def note(layer: nn.Module, _inputs: object) -> None:
        if layer.training:
            seen.add(type(layer).__name__)

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if seen:
        log.warning(
            "the guard runs the model in training mode (%s): its losses contain dropout, or depend on the batch. Call "
            "model.eval() in the guard; Nowcast restores the mode",
            ", ".join(sorted(seen)),
        )
