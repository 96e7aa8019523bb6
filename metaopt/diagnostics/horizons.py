"""The loss of predictions as a function of their horizon."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..generative.base import GenerativeOptimizer
from ..generative.extrapolation import Line
from .probed_run import ProbedRun, Weights, evenly

_STARTS = 3
_HORIZONS = 9
_MIN_STRIDES = 8  # least longest horizon, however short the horizons of the evaluation are


@dataclass(frozen=True)
class Horizons:
    """Log loss of predictions relative to that of W_t: below zero is better, −0.1 is a tenth less.

    Attributes:
        starts: steps of W_t.
        horizons: t_end − t_start [steps].
        proposed: the horizons that the nowcasts of the evaluation propose [steps].
        loss: loss of W_t.
        candidate, line: of the predictions of the candidate, and of the line.
        hold: of the hold run itself at t_end; NaN after its end.
    """

    starts: tuple[int, ...]
    horizons: tuple[int, ...]
    proposed: tuple[int, ...]
    loss: Float[np.ndarray, " starts"]
    candidate: Float[np.ndarray, "starts horizons"]
    line: Float[np.ndarray, "starts horizons"]
    hold: Float[np.ndarray, "starts horizons"]


def horizons(run: ProbedRun, optimizer: GenerativeOptimizer) -> Horizons:
    """Measure predictions with several horizons from an early, a middle and a late state."""
    config = run.setup.config
    proposed = config.policy.all_horizons
    longest = max(*proposed, _MIN_STRIDES * config.stride)
    measured = evenly(range(0, longest + config.stride, config.stride), _HORIZONS)
    starts = run.starts(_STARTS, measured[-1]) or run.starts(_STARTS)
    before = np.array([run.loss(run.snapshots[start]) for start in starts])

    def changes(weights: Callable[[int, int], Weights | None]) -> Float[np.ndarray, "starts horizons"]:
        losses = [[_loss(run, weights(start, horizon)) for horizon in measured] for start in starts]
        return np.log(np.array(losses) / before[:, None])

    return Horizons(
        starts=tuple(starts),
        horizons=tuple(measured),
        proposed=proposed,
        loss=before,
        candidate=changes(lambda start, horizon: run.predict(optimizer, start, horizon)),
        line=changes(lambda start, horizon: run.predict(Line(), start, horizon)),
        hold=changes(lambda start, horizon: run.snapshots.get(start + horizon)),
    )


def _loss(run: ProbedRun, weights: Weights | None) -> float:
    loss = math.nan if weights is None else run.loss(weights)
    return loss if 0 < loss < math.inf else math.nan
