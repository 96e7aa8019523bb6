"""The plane of a hold run's first two principal components: snapshots, predictions, and the loss around them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..generative.base import GenerativeOptimizer
from .probed_run import ProbedRun, Weights, evenly

_MARGIN = 0.18  # around the shown points, as a share of their extent
_ASPECT = 1.75  # width / height of the figure: distances have the same scale in both directions


@dataclass(frozen=True)
class Plane:
    """Positions in the plane of a trajectory's first two principal components, and the losses there.

    Attributes:
        steps, path, path_losses: steps of the snapshots, their positions (origin: their mean), and their losses.
        starts: steps from which the predictions start; `steps` contains them.
        horizon: horizon of the predictions [steps].
        predicted, predicted_losses: positions of the predictions, and their losses.
        in_plane: share of the squared length of each predicted change that is in the plane.
        x, y, losses: a grid of positions in the plane, and the loss exactly there.
        explained: share of the trajectory's variance in the plane.
    """

    steps: tuple[int, ...]
    path: Float[np.ndarray, "snapshots 2"]
    path_losses: Float[np.ndarray, " snapshots"]
    starts: tuple[int, ...]
    horizon: int
    predicted: Float[np.ndarray, "starts 2"]
    predicted_losses: Float[np.ndarray, " starts"]
    in_plane: Float[np.ndarray, " starts"]
    x: Float[np.ndarray, " columns"]
    y: Float[np.ndarray, " rows"]
    losses: Float[np.ndarray, "rows columns"]
    explained: float

    def position(self, step: int) -> Float[np.ndarray, " 2"]:
        """The position of a snapshot."""
        return self.path[self.steps.index(step)]


def plane(run: ProbedRun, optimizer: GenerativeOptimizer) -> Plane | None:
    """Project a run and predictions onto its plane; None if the run hardly moves or a prediction is not finite."""
    starts = run.starts()
    needed = {*starts, *(start + run.horizon for start in starts)}
    steps = sorted(needed | set(evenly(sorted(run.snapshots), run.detail.snapshots)))
    mean, basis, explained = _principal_components([run.snapshots[step] for step in steps])
    path = np.stack([_projected(run.snapshots[step], mean, basis) for step in steps])
    predicted, predicted_losses, in_plane = [], [], []
    for start in starts:
        weights = run.predict(optimizer, start, run.horizon)
        predicted.append(_projected(weights, mean, basis))
        predicted_losses.append(run.loss(weights))
        change = weights - run.snapshots[start]
        in_plane.append(float((basis @ change).square().sum() / change.square().sum().clamp(min=1e-30)))
    shown = np.concatenate([path, np.stack(predicted)])
    if not np.isfinite(shown).all() or not np.ptp(path, axis=0)[0]:
        return None
    x, y = _grid(shown, run.detail.grid)
    losses = [[run.loss(mean + basis[0] * float(a) + basis[1] * float(b)) for a in x] for b in y]
    return Plane(
        steps=tuple(steps),
        path=path,
        path_losses=np.array([run.loss(run.snapshots[step]) for step in steps]),
        starts=tuple(starts),
        horizon=run.horizon,
        predicted=np.stack(predicted),
        predicted_losses=np.array(predicted_losses),
        in_plane=np.array(in_plane),
        x=x,
        y=y,
        losses=np.array(losses),
        explained=explained,
    )


def _principal_components(snapshots: list[Weights]) -> tuple[Weights, Float[Tensor, "2 weights"], float]:
    """The mean, two orthonormal directions of largest variance, and their share of the variance.

    They are computed from the inner products of the snapshots. A direction without variance is zero.
    """
    centred = torch.stack(snapshots)
    mean = centred.mean(0)
    centred -= mean
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    largest, coefficients = values[-2:].flip(0).clamp(min=0), vectors[:, -2:].flip(1).T
    lengths = torch.where(largest > values[-1] * 1e-9, largest, torch.inf).sqrt().unsqueeze(1)
    basis = (coefficients / lengths).float() @ centred
    return mean, basis, float(largest.sum() / values.clamp(min=0).sum().clamp(min=1e-30))


def _projected(weights: Weights, mean: Weights, basis: Float[Tensor, "2 weights"]) -> Float[np.ndarray, " 2"]:
    return (basis @ (weights - mean)).double().numpy()


def _grid(shown: Float[np.ndarray, "points 2"], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions along both axes, in the shape of the figure, with a margin around the shown points."""
    low, high = shown.min(0), shown.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + _MARGIN)
    half = np.maximum(half, half[::-1] * [_ASPECT, 1 / _ASPECT])
    x, y = (np.linspace(m - h, m + h, points) for m, h in zip(middle, half, strict=True))
    return x, y
