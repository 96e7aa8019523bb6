"""The running averages of the weights that a `Nowcast` keeps."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..weights.averaging import SHORT_DECAY, ExponentialMovingAverage


class RunningAverages:
    """The running averages of the weights during a training; iteration gives each distinct one.

    Args:
        forecast_decay: decay of the average that the forecaster predicts; 0 if it predicts the weights themselves.
        decay: decay of the average to evaluate and to keep; by default it is the predicted one, if there is one.
        guarded: whether a guard decides if the weights follow a forecast.
    Attributes:
        predicted: the average that the forecaster predicts; None if it predicts the weights themselves.
        short: an average over few updates: close to the weights, with less noise. None if nothing is decided by it.
        kept: the average to evaluate and to keep; None if there is none.
    """

    def __init__(self, forecast_decay: float, decay: float | None, *, guarded: bool) -> None:
        own = None if decay is None else ExponentialMovingAverage(decay)
        self.predicted = ExponentialMovingAverage(forecast_decay) if forecast_decay else None
        self.short = ExponentialMovingAverage(SHORT_DECAY) if forecast_decay and guarded else None
        self.kept = own or self.predicted

    def __iter__(self) -> Iterator[ExponentialMovingAverage]:
        distinct = dict.fromkeys([self.kept, self.predicted, self.short])
        return (average for average in distinct if average is not None)

    def update(self, weights: Sequence[Tensor], steps: int = 1) -> None:
        """Update all averages with the weights after some steps, which count as equal in all of them."""
        for average in self:
            average.update(weights, steps)

    def keep_only_kept(self) -> None:
        """Drop the averages that only nowcasts need."""
        self.predicted = self.short = None

    def reset(self) -> None:
        """Forget all averages."""
        for average in self:
            average.reset()

    def shift(self, changes: Sequence[Tensor]) -> None:
        """Add a change of each weight tensor to all averages [raw units]."""
        for average in self:
            average.shift(changes)

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of all averages."""
        return [average.state_dict() for average in self]

    def load_state_dict(self, states: Sequence[dict[str, Any]], weights: Sequence[Tensor]) -> None:
        """Restore the averages of the same decays; the others stay as they are.

        Args:
            weights: the averaged tensors, on whose devices the averages are.
        """
        saved = {state["decay"]: state for state in states}
        for average in self:
            if average.decay in saved:
                average.load_state_dict(saved[average.decay], weights)
