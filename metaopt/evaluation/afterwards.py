"""What is left of a nowcast's gain some steps later: its twin's loss is the measure."""

from collections.abc import Sequence
from dataclasses import dataclass

from .config import DELAYS
from .rates import at_rate, best_rate
from .results import HOLD, Comparison, Curve
from .statistics import Interval, bounded, geometric_mean


@dataclass(frozen=True)
class Afterwards:
    """A nowcasting contender's loss in training, relative to hold's at the same step and learning rate.

    Attributes:
        delay: steps after a nowcast, whether kept or not [steps].
        loss, of_hold: validation loss; geometric means.
        ratio: of both (below 1: still ahead); geometric mean, the interval over random seeds.
    """

    contender: str
    delay: int
    loss: float
    of_hold: float
    ratio: Interval


def afterwards(comparison: Comparison) -> list[Afterwards]:
    """For each contender that nowcasts, at its best learning rate, and for each delay that fits into the budget."""
    found = []
    for contender in comparison.contenders:
        same = at_rate(comparison, best_rate(comparison, contender))
        pairs = list(zip(same.curves_of(contender), same.curves_of(HOLD), strict=True))
        if any(curve.events for curve, _ in pairs):
            found += [made for delay in DELAYS if (made := _after(contender, delay, pairs)) is not None]
    return found


def _after(contender: str, delay: int, pairs: Sequence[tuple[Curve, Curve]]) -> Afterwards | None:
    ours, holds, ratios = [], [], []
    for curve, hold in pairs:
        steps = {event.step + delay for event in curve.events}
        there = [place for place, step in enumerate(curve.steps) if step in steps]
        if there:
            ours.append(geometric_mean([bounded(curve.losses[place]) for place in there]).mean)
            holds.append(geometric_mean([bounded(hold.losses[place]) for place in there]).mean)
            ratios.append(ours[-1] / holds[-1])
    if not ratios:
        return None
    return Afterwards(contender, delay, geometric_mean(ours).mean, geometric_mean(holds).mean, geometric_mean(ratios))
