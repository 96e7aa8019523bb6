"""How many random seeds a comparison needs: the power of Student's paired t-test."""

import math

from scipy.special import nctdtr, stdtrit  # type: ignore[import-untyped]

MOST_SEEDS = 1000
"""Number of random seeds above which none is suggested."""

USUAL_POWER = 0.8
"""Probability with which a difference should be shown."""


def power(difference: float, noise: float, seeds: int) -> float:
    """The probability that the 95 % interval of paired differences lies on the right side of zero.

        power(difference=5.0, noise=3.0, seeds=5)  # 0.79

    Args:
        difference: true mean of the differences.
        noise: true standard deviation of the differences between random seeds, in the same unit.
        seeds: number of random seeds [count].
    References: the noncentral t distribution, as in Cohen 1988, Statistical Power Analysis.
    """
    if seeds < 2 or not difference:
        return 0.0
    if not noise:
        return 1.0
    critical, centre = float(stdtrit(seeds - 1, 0.975)), abs(difference) / noise * math.sqrt(seeds)
    missed = float(nctdtr(seeds - 1, centre, critical))
    return 1.0 if math.isnan(missed) and centre > critical else 1.0 - missed  # SciPy gives NaN far from the centre


def seeds_needed(difference: float, noise: float) -> int | None:
    """The number of random seeds with which a difference would be shown with a probability of 80 %.

        seeds_needed(difference=1.0, noise=1.0)  # 10

    Returns: None if more than `MOST_SEEDS` are needed, or if there is no difference.
    """
    low, high = 2, MOST_SEEDS
    if power(difference, noise, high) < USUAL_POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, noise, middle) >= USUAL_POWER else (middle + 1, high)
    return low
