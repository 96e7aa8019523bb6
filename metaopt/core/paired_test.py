"""The test that decides about promotion: whether one of two is better, measured on equal random seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.special import stdtr  # type: ignore[import-untyped]

from .text import counted

_SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the candidate is better than the champion, and the reason in words."""

    better: bool
    reason: str


def decided_by(gains: Sequence[float], figure: str, equal: float) -> PromotionDecision:
    """Whether a candidate is better than the champion, by Student's one-sided paired t-test over random seeds.

        decided_by([0.3, 0.1, 0.2], "its return minus the champion's: +0.2", equal=0.0).better  # True

    Args:
        gains: by how much the candidate is better, one number per random seed.
        figure: what was compared, with its value, in words.
        equal: the value of the figure if both were equally good.
    """
    better = is_shown(gains)
    wanted = "below" if better else f"expected above {equal:g} and p below"
    test = f"paired t-test on {counted(len(gains), 'random seed')}, p = {paired_p_value(gains):.3g}"
    return PromotionDecision(better, f"{figure} ({test}; {wanted} {_SIGNIFICANCE_LEVEL})")


def is_shown(gains: Sequence[float]) -> bool:
    """Whether gains, one per random seed, are shown to be above zero."""
    return len(gains) > 1 and fmean(gains) > 0 and paired_p_value(gains) < _SIGNIFICANCE_LEVEL


def paired_p_value(differences: Sequence[float]) -> float:
    """The p-value of Student's one-sided paired t-test: the probability of such a mean, or a larger one, under zero."""
    n, mean = len(differences), math.fsum(differences) / len(differences)
    if n < 2 or mean <= 0:
        return 1.0
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1) / n)
    return float(stdtr(n - 1, -mean / error)) if error > 0 else 0.0
