"""Statistics of a comparison: means with intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit  # type: ignore[import-untyped]


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval; the bounds of a single value are None."""

    mean: float
    low: float | None
    high: float | None


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of values with its 95 % confidence interval by Student's t.

        mean_interval([1.0, 3.0]).mean  # 2.0

    Args:
        values: one per random seed, at least one.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Interval(mean, None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def geometric_mean(values: Sequence[float]) -> Interval:
    """The geometric mean of positive values, with Student's t-interval of the mean of their logarithms.

        geometric_mean([1.0, 4.0]).mean  # 2.0

    Args:
        values: one per random seed, at least one.
    """
    mean, low, high = mean_interval([math.log(value) for value in values])
    return Interval(math.exp(mean), None if low is None else math.exp(low), None if high is None else math.exp(high))


def first_at_or_below(target: float, losses: Sequence[float]) -> int | None:
    """The index of the first loss at or below the target; None without one. A NaN is never below."""
    return next((index for index, loss in enumerate(losses) if loss <= target), None)


def bounded(value: float) -> float:
    """A value clamped to [1e-12, 1e12], so that its logarithm is finite; NaN gives 1e12."""
    return 1e12 if math.isnan(value) else min(max(value, 1e-12), 1e12)
