"""Which learning rates are set against each other: the same, or each contender's best."""

from dataclasses import replace
from statistics import fmean

from .results import Comparison


def at_rate(comparison: Comparison, rate: str) -> Comparison:
    """All contenders at one learning rate."""
    return replace(
        comparison,
        curves=tuple(curve for curve in comparison.curves if curve.rate == rate),
        predictions=tuple(prediction for prediction in comparison.predictions if prediction.rate == rate),
    )


def best_rate(comparison: Comparison, contender: str) -> str:
    """Where a contender's best validation loss within the budget, the mean over random seeds, is lowest.

    It is chosen by the loss that also judges, for every contender alike.
    """
    curves = comparison.curves_of(contender)
    means = {rate: fmean(c.best for c in curves if c.rate == rate) for rate in comparison.rates}
    return min(means, key=lambda rate: means[rate])


def at_best_rates(comparison: Comparison) -> Comparison:
    """Each contender at its own best learning rate; single predictions at that of the judged optimizer."""
    best = {contender: best_rate(comparison, contender) for contender in comparison.contenders}
    predictions = (p for p in comparison.predictions if p.rate == best[comparison.judged])
    curves = (c for name, rate in best.items() for c in comparison.curves_of(name) if c.rate == rate)
    return replace(comparison, curves=tuple(curves), predictions=tuple(predictions))
