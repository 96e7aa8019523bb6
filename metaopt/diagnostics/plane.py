"""The loss surface, snapshots and predictions in the plane of the first two principal components of a hold run."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..generative.base import GenerativeOptimizer
from .probed_run import ProbedRun, Weights, evenly

_MARGIN = 0.18  # margin on both sides of the plotted points together, as a fraction of their range
_ASPECT = 1.75  # width / height of the figure; both axes have the same scale


@dataclass(frozen=True)
class Plane:
    """Coordinates in the plane of the first two principal components of a run, and losses.

    Attributes:
        steps, path, path_losses: steps of the snapshots, their coordinates (the mean is the origin), and their losses.
        starts: steps from which the predictions start; a subset of `steps`.
        horizon: horizon of the predictions [steps].
        predicted, predicted_losses: coordinates and losses of the predictions.
        in_plane: fraction of the squared norm of each predicted change that lies in the plane.
        x, y, losses: coordinates of a grid in the plane, and the losses at the grid points.
        explained: explained variance ratio of the two components together.
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
        """The coordinates of the snapshot of a step."""
        return self.path[self.steps.index(step)]


def plane(run: ProbedRun, optimizer: GenerativeOptimizer) -> Plane | None:
    """Project the snapshots of a run and the predictions onto the first two principal components of the run.

    Returns: coordinates and losses; None if the weights do not change during the run, or a coordinate is not finite.
    """
    starts = run.starts()
    required = {*starts, *(start + run.horizon for start in starts)}
    steps = sorted(required | set(evenly(sorted(run.snapshots), run.detail.snapshots)))
    mean, basis, explained = _principal_components([run.snapshots[step] for step in steps])
    path = np.stack([_project(run.snapshots[step], mean, basis) for step in steps])
    predicted, predicted_losses, in_plane = [], [], []
    for start in starts:
        weights = run.predict(optimizer, start, run.horizon)
        predicted.append(_project(weights, mean, basis))
        predicted_losses.append(run.loss(weights))
        change = weights - run.snapshots[start]
        in_plane.append(float((basis @ change).square().sum() / change.square().sum().clamp(min=1e-30)))
    positions = np.concatenate([path, np.stack(predicted)])
    if not np.isfinite(positions).all() or not np.ptp(path, axis=0)[0]:
        return None
    x, y = _grid(positions, run.detail.grid)
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
    """The mean, the first two principal components (orthonormal), and the variance ratio that both explain together.

    They are computed from the Gram matrix of the centred snapshots. A component with negligible variance is replaced by
    the zero vector.
    """
    centred = torch.stack(snapshots)
    mean = centred.mean(0)
    centred -= mean
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    largest, coefficients = values[-2:].flip(0).clamp(min=0), vectors[:, -2:].flip(1).T
    lengths = torch.where(largest > values[-1] * 1e-9, largest, torch.inf).sqrt().unsqueeze(1)
    basis = (coefficients / lengths).float() @ centred
    return mean, basis, float(largest.sum() / values.clamp(min=0).sum().clamp(min=1e-30))


def _project(weights: Weights, mean: Weights, basis: Float[Tensor, "2 weights"]) -> Float[np.ndarray, " 2"]:
    return (basis @ (weights - mean)).double().numpy()


def _grid(positions: Float[np.ndarray, "points 2"], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Grid coordinates along both axes: the range of the positions and a margin, in the aspect ratio of the figure."""
    low, high = positions.min(0), positions.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + _MARGIN)
    half = np.maximum(half, half[::-1] * [_ASPECT, 1 / _ASPECT])
    x, y = (np.linspace(m - h, m + h, size) for m, h in zip(middle, half, strict=True))
    return x, y
