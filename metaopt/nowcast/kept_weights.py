"""The weights to evaluate and to keep: those of the training, or their running average."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, NamedTuple

from torch import nn

from ..core.errors import InvalidConfig
from .guards.guard import Guard
from .reestimation import Reestimation
from .tracked_weights import TrackedWeights


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


class KeptWeights:
    """Puts the weights to evaluate and to keep in the network, and restores those of the training exactly.

    Args:
        model: the network, as the user knows it.
        tracked: its weights and their running average.
        guard: computes the losses of the network on held-out data.
        reestimation: updates the buffers that depend on the weights.
    """

    def __init__(self, model: nn.Module, tracked: TrackedWeights, guard: Guard, reestimation: Reestimation) -> None:
        self._model, self._tracked, self._guard, self._reestimation = model, tracked, guard, reestimation

    @contextmanager
    def averaged(self, step: int) -> Iterator[nn.Module]:
        """Replace the weights by their running average inside the block.

        Args:
            step: the present training time [steps].
        Raises:
            InvalidConfig: there is no running average.
        """
        if self._tracked.averages.kept is None:
            raise InvalidConfig("there is no running average of the weights; set ema of Nowcast, for example ema=0.99")
        model_state = self._tracked.model_state
        saved = model_state.save()
        try:
            if (average := self._tracked.average(step)) is not None:
                self._tracked.layout.write(model_state.model, average)
                self._reestimation.update_buffers()
                self._reestimation.update_statistics()
            yield self._model
        finally:
            model_state.restore(saved)

    @contextmanager
    def best(self, step: int) -> Iterator[BestWeights]:
        """Keep the weights inside the block, or replace them by their running average: what the guard prefers.

        Args:
            step: the present training time [steps].
        Raises:
            InvalidConfig: there is no guard, or no running average.
        """
        best = self._preferred(step)
        with self.averaged(step) if best.kind == "averaged" else nullcontext():
            yield best

    def _preferred(self, step: int) -> BestWeights:
        """Measure both kinds of weights on examples that no nowcast was measured on, if the guard chooses them."""
        if not self._guard:
            raise InvalidConfig(
                "best_weights compares the weights with their running average by the guard, and there is none. Give "
                "Nowcast(…, guard=metaopt.guard_from(held_out_data, loss)), or use averaged_weights()"
            )
        model_state = self._tracked.model_state
        self._guard.start(step, fresh=True)
        try:
            with model_state.restored_on_error() as saved:
                raw = self._guard.losses(model_state.device)
                model_state.restore_buffers(saved.buffers)
                with self.averaged(step):
                    average = self._guard.losses(model_state.device)
        finally:
            self._guard.finish()
        assert raw is not None
        assert average is not None
        loss_raw, loss_averaged = float(raw.mean()), float(average.mean())
        kind: Literal["raw", "averaged"] = "averaged" if loss_averaged < loss_raw else "raw"
        return BestWeights(self._model, kind, loss_raw, loss_averaged)
