"""Whether a judged optimizer is better than the present champion, by twins of the same random seeds."""

import math
from dataclasses import dataclass
from statistics import fmean

from .results import CHAMPION, Comparison
from .statistics import geometric_mean, paired_p
from .summary import Summary, at_rate

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Verdict:
    """Whether the alias moves, and why in words."""

    better: bool
    reason: str


def verdict(comparison: Comparison) -> Verdict:
    """Compare steps to target with those of the contender `champion`, paired by random seed.

    The differences of log steps are averaged over learning rates first, for one random seed's are no independent
    trials. A one-sided paired t-test then decides; a training that never arrived counts as in `StepsToTarget`.
    """
    ours, theirs = (_log_steps(comparison, name) for name in (comparison.judged, CHAMPION))
    saved = [before - after for before, after in zip(theirs, ours, strict=True)]
    p, factor = paired_p(saved), geometric_mean([math.exp(value) for value in saved]).mean
    better = len(saved) > 1 and fmean(saved) > 0 and p < _SIGNIFICANT
    found = f"the champion's steps to target / its own: {factor:.3f} (paired t-test on {len(saved)} random seeds, "
    return Verdict(better, f"{found}p = {p:.3g}; {'below' if better else 'expected above 1 and p below'} 0.05)")


def _log_steps(comparison: Comparison, contender: str) -> list[float]:
    """Log steps to target of each random seed, the mean over learning rates."""
    per_rate = []
    for rate in comparison.rates:
        standings = Summary(at_rate(comparison, rate)).standings
        arrival = next(standing.full for standing in standings if standing.contender == contender)
        per_rate.append([math.log(steps) for steps in arrival.counted])
    return [fmean(values) for values in zip(*per_rate, strict=True)]
