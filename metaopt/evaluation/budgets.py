"""Losses at the ends of the parts of the budget, where schedules and branches are at their best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from .baselines import BUDGET_BASELINES, DERIVED_BASELINES, TRAINED_BASELINES
from .results import AVERAGE, Comparison
from .statistics import Interval, bounded, geometric_mean


@dataclass(frozen=True)
class LossAtBudget:
    """The validation loss of a contender at the end of a part of the budget, at its best learning rate there.

    Attributes:
        step: the end of the part [steps].
        rate: the learning rate with the lowest mean loss at this step.
        losses: one per random seed; infinite where the training diverged.
        ratio: loss / that of the best baseline at this step, with the same random seed; geometric mean. None for the
            best baseline itself, and without baselines.
    """

    contender: str
    step: int
    rate: str
    losses: tuple[float, ...]
    ratio: Interval | None

    @property
    def loss(self) -> float:
        """Mean over the random seeds."""
        return fmean(self.losses)


def losses_at_budgets(comparison: Comparison, steps: Sequence[int]) -> list[LossAtBudget]:
    """The losses of all contenders at the ends of the parts of the budget.

    Args:
        steps: the ends, at which every curve was measured [steps].
    """
    return [result for step in steps for result in _at(comparison, step)]


def best_baseline(comparison: Comparison, step: int) -> str | None:
    """The contender without nowcasts that has the lowest mean loss at a step; None if there is none."""
    losses = {name: _best(comparison, name, step)[1] for name in comparison.contenders if is_free(name)}
    return min(losses, key=lambda name: fmean(losses[name]), default=None)


def is_free(contender: str) -> bool:
    """Whether a contender is a baseline without nowcasts: a read-out, a run per budget, or another training rule."""
    return contender.removesuffix(f" {AVERAGE}") in {*DERIVED_BASELINES, *TRAINED_BASELINES, *BUDGET_BASELINES}


def _at(comparison: Comparison, step: int) -> list[LossAtBudget]:
    best = best_baseline(comparison, step)
    reference = [] if best is None else _best(comparison, best, step)[1]
    results = []
    for name in comparison.contenders:
        rate, losses = _best(comparison, name, step)
        ratio = None
        if best is not None and name != best:
            pairs = zip(losses, reference, strict=True)
            ratio = geometric_mean([bounded(loss) / bounded(other) for loss, other in pairs])
        results.append(LossAtBudget(name, step, rate, tuple(losses), ratio))
    return results


def _best(comparison: Comparison, contender: str, step: int) -> tuple[str, list[float]]:
    """The best learning rate of a contender at a step, and its losses there, one per random seed."""
    by_rate: dict[str, list[float]] = {}
    for curve in comparison.curves_of(contender):
        loss = curve.losses[curve.steps.index(step)]
        by_rate.setdefault(curve.rate, []).append(math.inf if math.isnan(loss) else loss)
    rate = min(by_rate, key=lambda rate: fmean(by_rate[rate]))
    return rate, by_rate[rate]
