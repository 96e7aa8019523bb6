"""Read-outs: weights that are computed from those of a run, without changing the run."""

from collections import deque
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..weights.averaging import ExponentialMovingAverage

Weights = Float[Tensor, " weights"]

_LAWA_SNAPSHOTS = 5
_RNA_SNAPSHOTS = 10
_REGULARISATION = 1e-2  # relative to the largest eigenvalue of the Gram matrix of the residuals


class DerivedWeights(Protocol):
    """Weights that are computed from those of a run, and do not change the run."""

    def update(self, weights: Weights, snapshot: bool) -> None:
        """Include the weights after a step; `snapshot`: whether the step is a multiple of the stride."""

    def weights(self) -> Weights:
        """The derived weights after the last update [raw units]."""


class EMA:
    """The exponential moving average of the weights after each step, without the initial weights."""

    def __init__(self, decay: float) -> None:
        self._average, self._latest, self._started = ExponentialMovingAverage(decay), torch.zeros(0), False

    def update(self, weights: Weights, snapshot: bool) -> None:
        """Update the average with the weights after a step."""
        self._latest = weights
        if self._started:
            self._average.update([weights])
        self._started = True

    def weights(self) -> Weights:
        """The average; the initial weights before the first step."""
        return self._average.tensors[0].clone() if self._average.updates else self._latest


class GrowingAverage:
    """An average whose horizon grows with the time: a ← a + (γ + 1) / (γ + t) · (w − a) at step t.

    It covers about the last 1 / (γ + 1) of the steps so far, so no decay must suit the length of the training.

    References: Shamir & Zhang 2013, arXiv:1212.1824 (polynomial-decay averaging).

    Args:
        gamma: γ; with 8, the average covers about the last ninth.
    """

    def __init__(self, gamma: float = 8.0) -> None:
        self._gamma, self._average, self._steps = gamma, torch.zeros(0), -1

    def update(self, weights: Weights, snapshot: bool) -> None:
        """Update the average with the weights after a step."""
        self._steps += 1
        if self._steps < 2:  # the initial weights, and those that replace them
            self._average = weights.clone()
        else:
            self._average.lerp_(weights, (self._gamma + 1) / (self._gamma + self._steps))

    def weights(self) -> Weights:
        """The average; the initial weights before the first step."""
        return self._average.clone()


class LatestWeightAverage:
    """Latest weight averaging (LAWA): the mean of the last snapshots, without the initial weights.

    References: Kaddour 2022, arXiv:2209.14981. Departs: snapshots are a stride apart, not an epoch.

    Args:
        snapshots: length of the window [count].
    """

    def __init__(self, snapshots: int = _LAWA_SNAPSHOTS) -> None:
        self._window: deque[Weights] = deque(maxlen=snapshots)
        self._latest, self._started = torch.zeros(0), False

    def update(self, weights: Weights, snapshot: bool) -> None:
        """Keep the weights if they are a snapshot."""
        self._latest = weights
        if snapshot and self._started:
            self._window.append(weights)
        self._started = True

    def weights(self) -> Weights:
        """The mean; the latest weights before the first snapshot."""
        return torch.stack(list(self._window)).mean(0) if self._window else self._latest


class NonlinearAcceleration:
    """Regularised nonlinear acceleration (RNA): the combination of snapshots with the smallest residual.

    References: Scieur et al. 2016, arXiv:1606.04133, algorithm 1. Departs: a step of the method is a stride of the
        base optimizer, the regularisation is fixed, and the result is not fed back.

    Args:
        snapshots: how many are combined [count].
    """

    def __init__(self, snapshots: int = _RNA_SNAPSHOTS) -> None:
        self._window: deque[Weights] = deque(maxlen=snapshots + 1)
        self._latest = torch.zeros(0)

    def update(self, weights: Weights, snapshot: bool) -> None:
        """Keep the weights if they are a snapshot."""
        self._latest = weights
        if snapshot:
            self._window.append(weights)

    def weights(self) -> Weights:
        """The combination; the latest weights while there are fewer than three snapshots."""
        if len(self._window) < 3:
            return self._latest
        snapshots = torch.stack(list(self._window))
        return rna_coefficients(snapshots.diff(dim=0)) @ snapshots[1:]


def rna_coefficients(
    residuals: Float[Tensor, "count weights"], regularisation: float = _REGULARISATION
) -> Float[Tensor, " count"]:
    """The coefficients c of RNA: argmin ‖Rᵀc‖² + λ‖R Rᵀ‖ ‖c‖² subject to Σc = 1.

    Args:
        residuals: R, the differences of successive snapshots.
        regularisation: λ; the larger it is, the closer the coefficients are to equal.
    """
    products = (residuals @ residuals.T).cpu().double()  # some accelerators have no float64
    system = products / torch.linalg.matrix_norm(products, 2).clamp(min=torch.finfo(torch.float64).tiny)
    solution = torch.linalg.solve(
        system + regularisation * torch.eye(len(system), dtype=torch.float64), torch.ones(len(system)).double()
    )
    return (solution / solution.sum()).to(residuals)
