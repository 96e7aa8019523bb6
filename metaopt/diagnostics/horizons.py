"""The loss of predictions as a function of how far ahead they look."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..generative.base import GenerativeOptimizer
from ..generative.extrapolation import Line
from .probed_run import ProbedRun, Weights, evenly

_STATES = 3
_HORIZONS = 9
_LEAST = 8  # strides that are looked ahead at least, however near the horizons of the evaluation


@dataclass(frozen=True)
class Horizons:
    """Log loss at t_end, relative to that of W_t: below zero is better, −0.1 is a tenth less.

    Attributes:
        starts: steps of W_t.
        horizons: t_end − t_start [steps].
        proposed: the horizons that the evaluation's nowcasts propose [steps].
        loss: of W_t.
        judged, line: of predictions.
        twin: of the twin itself, that many steps later; not a number beyond the budget.
    """

    starts: tuple[int, ...]
    horizons: tuple[int, ...]
    proposed: tuple[int, ...]
    loss: Float[np.ndarray, " starts"]
    judged: Float[np.ndarray, "starts horizons"]
    line: Float[np.ndarray, "starts horizons"]
    twin: Float[np.ndarray, "starts horizons"]


def horizons(course: ProbedRun, optimizer: GenerativeOptimizer) -> Horizons:
    """Predict for several times from an early, a middle and a late state."""
    config = course.setup.config
    proposed = config.policy.all_horizons
    furthest = max(*proposed, _LEAST * config.stride)
    ahead = evenly(range(0, furthest + config.stride, config.stride), _HORIZONS)
    starts = course.starts(_STATES, ahead[-1]) or course.starts(_STATES)
    before = np.array([course.loss(course.snapshots[start]) for start in starts])

    def changes(weights: Callable[[int, int], Weights | None]) -> Float[np.ndarray, "starts horizons"]:
        losses = [[_loss(course, weights(start, horizon)) for horizon in ahead] for start in starts]
        return np.log(np.array(losses) / before[:, None])

    return Horizons(
        starts=tuple(starts),
        horizons=tuple(ahead),
        proposed=proposed,
        loss=before,
        judged=changes(lambda start, horizon: course.predicted(optimizer, start, horizon)),
        line=changes(lambda start, horizon: course.predicted(Line(), start, horizon)),
        twin=changes(lambda start, horizon: course.snapshots.get(start + horizon)),
    )


def _loss(course: ProbedRun, weights: Weights | None) -> float:
    loss = math.nan if weights is None else course.loss(weights)
    return loss if 0 < loss < math.inf else math.nan
