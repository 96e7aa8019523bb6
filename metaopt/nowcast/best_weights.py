"""Which weights to keep after a training: the last ones, or their running average."""

from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

from torch import nn

from ..core.errors import InvalidConfig
from .guard import Guard
from .model_state import ModelState


class BestWeights(NamedTuple):
    """The weights that the guard prefers, and its losses.

    Attributes:
        model: the network, which has them.
        kind: `raw` for the weights of the training, `averaged` for their running average.
        loss_raw, loss_averaged: mean losses of the guard.
    """

    model: nn.Module
    kind: Literal["raw", "averaged"]
    loss_raw: float
    loss_averaged: float


def preferred_weights(
    guard: Guard, state: ModelState, averaged: AbstractContextManager[nn.Module], model: nn.Module, step: int
) -> BestWeights:
    """Measure both kinds of weights on examples that no nowcast was measured on, if the guard chooses its examples.

    Args:
        guard: computes the losses of the network.
        state: weights and buffers of the network, which are restored.
        averaged: puts the running average in their place.
        model: the network, as the user knows it.
        step: the present training time [steps].
    Raises:
        InvalidConfig: there is no guard.
    """
    if not guard:
        raise InvalidConfig(
            "best_weights compares the weights with their running average by the guard, and there is none. Give "
            "Nowcast(…, guard=metaopt.guard_from(held_out_data, loss)), or use averaged_weights()"
        )
    guard.start(step, fresh=True)
    try:
        with state.restored_on_error() as saved:
            raw = guard.losses(state.device)
            state.restore_buffers(saved.buffers)
            with averaged:
                average = guard.losses(state.device)
    finally:
        guard.finish()
    assert raw is not None
    assert average is not None
    loss_raw, loss_averaged = float(raw.mean()), float(average.mean())
    return BestWeights(model, "averaged" if loss_averaged < loss_raw else "raw", loss_raw, loss_averaged)
