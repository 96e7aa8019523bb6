"""A training and predictions from it, seen in the plane in which it moves most."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..generative.base import GenerativeOptimizer
from .probed_run import ProbedRun, Weights, evenly

_MARGIN = 0.18  # of what is shown, around it
_SHAPE = 1.75  # width / height of what is shown: distances look the same in both directions


@dataclass(frozen=True)
class Plane:
    """Places in the plane of a trajectory's first two principal components, and the loss there.

    Attributes:
        steps, path, path_losses: the snapshots: when, where (origin: their mean), and the loss at each itself.
        starts: steps from which was predicted; all of them are among `steps`.
        reach: horizon of the predictions [steps].
        ends, end_losses, inside: predictions: where, the loss at each itself, and the share of the squared change
            that lies in the plane.
        x, y, losses: a grid of places in the plane, and the loss exactly there.
        explained: share of the trajectory's variance that the plane holds.
    """

    steps: tuple[int, ...]
    path: Float[np.ndarray, "snapshots 2"]
    path_losses: Float[np.ndarray, " snapshots"]
    starts: tuple[int, ...]
    reach: int
    ends: Float[np.ndarray, "starts 2"]
    end_losses: Float[np.ndarray, " starts"]
    inside: Float[np.ndarray, " starts"]
    x: Float[np.ndarray, " columns"]
    y: Float[np.ndarray, " rows"]
    losses: Float[np.ndarray, "rows columns"]
    explained: float

    def place(self, step: int) -> Float[np.ndarray, " 2"]:
        """Where a snapshot lies."""
        return self.path[self.steps.index(step)]


def plane(course: ProbedRun, optimizer: GenerativeOptimizer) -> Plane | None:
    """Look at a course in its plane; None where it hardly moves, or a prediction is not finite."""
    starts = course.starts()
    wanted = {*starts, *(start + course.reach for start in starts)}
    spread = evenly(sorted(course.snapshots), course.detail.snapshots)
    steps = sorted(wanted | set(spread))
    mean, basis, explained = _principal([course.snapshots[step] for step in steps])
    path = np.stack([_seen(course.snapshots[step], mean, basis) for step in steps])
    ends, end_losses, inside = [], [], []
    for start in starts:
        weights = course.predicted(optimizer, start, course.reach)
        ends.append(_seen(weights, mean, basis))
        end_losses.append(course.loss(weights))
        change = weights - course.snapshots[start]
        inside.append(float((basis @ change).square().sum() / change.square().sum().clamp(min=1e-30)))
    shown = np.concatenate([path, np.stack(ends)])
    if not np.isfinite(shown).all() or not np.ptp(path, axis=0)[0]:
        return None
    x, y = _grid(shown, course.detail.grid)
    losses = [[course.loss(mean + basis[0] * float(a) + basis[1] * float(b)) for a in x] for b in y]
    return Plane(
        steps=tuple(steps),
        path=path,
        path_losses=np.array([course.loss(course.snapshots[step]) for step in steps]),
        starts=tuple(starts),
        reach=course.reach,
        ends=np.stack(ends),
        end_losses=np.array(end_losses),
        inside=np.array(inside),
        x=x,
        y=y,
        losses=np.array(losses),
        explained=explained,
    )


def _principal(snapshots: list[Weights]) -> tuple[Weights, Float[Tensor, "2 weights"], float]:
    """Mean, two orthonormal directions of most variance, and their share of it; through inner products of snapshots.

    A direction in which nothing moves is zero.
    """
    together = torch.stack(snapshots)
    mean = together.mean(0)
    together -= mean
    values, vectors = torch.linalg.eigh((together @ together.T).double())
    largest, combined = values[-2:].flip(0).clamp(min=0), vectors[:, -2:].flip(1).T
    lengths = torch.where(largest > values[-1] * 1e-9, largest, torch.inf).sqrt().unsqueeze(1)
    basis = (combined / lengths).float() @ together
    return mean, basis, float(largest.sum() / values.clamp(min=0).sum().clamp(min=1e-30))


def _seen(weights: Weights, mean: Weights, basis: Float[Tensor, "2 weights"]) -> Float[np.ndarray, " 2"]:
    return (basis @ (weights - mean)).double().numpy()


def _grid(shown: Float[np.ndarray, "places 2"], points: int) -> tuple[np.ndarray, np.ndarray]:
    """Places along both axes, in the shape of the figure, with all that is shown inside."""
    low, high = shown.min(0), shown.max(0)
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + _MARGIN)
    half = np.maximum(half, half[::-1] * [_SHAPE, 1 / _SHAPE])
    x, y = (np.linspace(m - h, m + h, points) for m, h in zip(middle, half, strict=True))
    return x, y
