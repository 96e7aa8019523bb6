"""Whether a contender needs fewer steps than another, by paired runs; it decides about promotion, too."""

import math
from statistics import fmean

from ..core.paired_test import PromotionDecision, decided_by, is_shown
from .results import CHAMPION, Comparison
from .statistics import Interval, geometric_mean
from .summary import ContenderSummary, Summary, at_rate


def relative_steps(contender: ContenderSummary, other: ContenderSummary) -> Interval:
    """Steps to target of a contender / those of another, paired by random seed; geometric mean."""
    pairs = zip(contender.full.counted, other.full.counted, strict=True)
    return geometric_mean([ours / theirs for ours, theirs in pairs])


def needs_fewer_steps(contender: ContenderSummary, other: ContenderSummary) -> bool:
    """Whether a contender needs fewer steps to target than another, by a one-sided paired t-test over random seeds.

    Each contender is taken at its own best learning rate.
    """
    pairs = zip(other.full.counted, contender.full.counted, strict=True)
    return is_shown([math.log(theirs / ours) for theirs, ours in pairs])


def compare_with_champion(comparison: Comparison) -> PromotionDecision:
    """Compare steps to target with those of the contender `champion`, paired by random seed.

    The differences of log steps are first averaged over learning rates, because the runs of one random seed are not
    independent. A one-sided paired t-test decides. Runs that never reach the target count as in `StepsToTarget`.
    """
    ours, theirs = (_log_steps(comparison, name) for name in (comparison.candidate, CHAMPION))
    saved = [champion - candidate for champion, candidate in zip(theirs, ours, strict=True)]
    factor = geometric_mean([math.exp(value) for value in saved]).mean
    return decided_by(saved, f"the champion's steps to target / its own: {factor:.3f}", equal=1.0)


def _log_steps(comparison: Comparison, contender: str) -> list[float]:
    """Log steps to target of each random seed, the mean over learning rates."""
    per_rate = []
    for rate in comparison.rates:
        target = Summary(at_rate(comparison, rate)).of(contender).full
        per_rate.append([math.log(steps) for steps in target.counted])
    return [fmean(values) for values in zip(*per_rate, strict=True)]
