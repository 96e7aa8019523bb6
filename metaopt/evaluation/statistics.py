"""The few statistics that a comparison rests on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]


class Interval(NamedTuple):
    """A mean with its 95 % interval; the bounds are None where one value alone says nothing of the spread."""

    mean: float
    low: float | None
    high: float | None


def geometric_mean(values: Sequence[float]) -> Interval:
    """The geometric mean of positive values, with Student's t-interval of the mean of their logarithms."""
    logs = [math.log(value) for value in values]
    n, mean = len(logs), math.fsum(logs) / len(logs)
    if n < 2:
        return Interval(math.exp(mean), None, None)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in logs) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def first_at_or_below(target: float, losses: Sequence[float]) -> int | None:
    """Where a loss first reaches the target; None if it never does (a loss that is not a number never does)."""
    return next((place for place, loss in enumerate(losses) if loss <= target), None)


def paired_p(differences: Sequence[float]) -> float:
    """Student's one-sided paired test: how likely such a mean, or a larger one, would be if the true one were zero."""
    n, mean = len(differences), math.fsum(differences) / len(differences)
    if n < 2 or mean <= 0:
        return 1.0
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in differences) / (n - 1) / n)
    return float(stdtr(n - 1, -mean / error)) if error > 0 else 0.0


def bounded(value: float) -> float:
    """A positive number for a logarithm: what is not a number is as bad as a loss can be, zero as good."""
    return 1e12 if math.isnan(value) else min(max(value, 1e-12), 1e12)
