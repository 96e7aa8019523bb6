"""Baselines that read other weights out of a training without changing it: averages and combinations of its past."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..weights.averaging import ExponentialMovingAverage

Weights = Float[Tensor, " weights"]

_SNAPSHOTS = 5
_RNA_SNAPSHOTS = 10
_REGULARISATION = 1e-2  # relative to the largest eigenvalue of the residuals' products


class ReadOut(Protocol):
    """Takes in the weights of a training, step by step, and answers with weights of its own."""

    def take(self, weights: Weights, snapshot: bool) -> None:
        """Take in the weights after a step; `snapshot` says whether they are a whole stride after the last ones."""

    def read(self) -> Weights:
        """The weights to measure [raw units]."""


class EMA:
    """The exponential moving average of the weights after each step; the initial weights do not count."""

    def __init__(self, decay: float) -> None:
        self._average, self._newest, self._started = ExponentialMovingAverage(decay), torch.zeros(0), False

    def take(self, weights: Weights, snapshot: bool) -> None:
        """Update the average with the weights after a step."""
        self._newest = weights
        if self._started:
            self._average.update([weights])
        self._started = True

    def read(self) -> Weights:
        """The average; the initial weights before the first step."""
        return self._average.tensors[0].clone() if self._average.updates else self._newest


class LastAverage:
    """Latest weight averaging: the mean of the last snapshots, without the initial weights.

    References: Kaddour 2022, arXiv:2209.14981. Departs: snapshots are a stride apart, not an epoch.
    """

    def __init__(self, snapshots: int = _SNAPSHOTS) -> None:
        self._last: deque[Weights] = deque(maxlen=snapshots)
        self._newest, self._started = torch.zeros(0), False

    def take(self, weights: Weights, snapshot: bool) -> None:
        """Keep the weights if they are a snapshot."""
        self._newest = weights
        if snapshot and self._started:
            self._last.append(weights)
        self._started = True

    def read(self) -> Weights:
        """The mean; the newest weights before the first snapshot."""
        return torch.stack(list(self._last)).mean(0) if self._last else self._newest


class NonlinearAcceleration:
    """Regularised nonlinear acceleration (RNA): the combination of past snapshots whose residual is least.

    References: Scieur et al. 2016, arXiv:1606.04133, algorithm 1. Departs: a step of the method is a stride of the
        base optimizer, the regularisation is fixed, and the result is not fed back.
    """

    def __init__(self, snapshots: int = _RNA_SNAPSHOTS) -> None:
        self._last: deque[Weights] = deque(maxlen=snapshots + 1)
        self._newest = torch.zeros(0)

    def take(self, weights: Weights, snapshot: bool) -> None:
        """Keep the weights if they are a snapshot."""
        self._newest = weights
        if snapshot:
            self._last.append(weights)

    def read(self) -> Weights:
        """The combination; the newest weights while there are fewer than three snapshots."""
        if len(self._last) < 3:
            return self._newest
        snapshots = torch.stack(list(self._last))
        return combination(snapshots.diff(dim=0)) @ snapshots[1:]


def combination(residuals: Float[Tensor, "count weights"], regularisation: float = _REGULARISATION) -> Tensor:
    """Coefficients of sum 1 that make the combined residual small, the smaller the closer to the method's fixed point.

    Args:
        regularisation: relative to the norm of the system; the larger, the closer the coefficients are to equal.
    """
    products = (residuals @ residuals.T).double()
    system = products / torch.linalg.matrix_norm(products, 2).clamp(min=torch.finfo(torch.float64).tiny)
    solution = torch.linalg.solve(
        system + regularisation * torch.eye(len(system), dtype=torch.float64), torch.ones(len(system)).double()
    )
    return (solution / solution.sum()).float()


READ_OUTS: Mapping[str, Callable[[], ReadOut]] = {
    "EMA 0.98": lambda: EMA(0.98),
    "EMA 0.99": lambda: EMA(0.99),
    "LAWA": LastAverage,
    "RNA": NonlinearAcceleration,
}
"""What is read out of the hold twin."""

READ_OUT_DECAY = 0.98
"""Of the running average that a nowcasting twin keeps, where its optimizer does not bring one."""

READ_OUT_OF_NOWCASTS = "EMA"
"""What is read out of a nowcasting twin: its running average, which moves with each nowcast."""
