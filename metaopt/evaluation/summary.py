"""Which learning rates are set against each other: the same, or each contender's best."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from .config import DELAYS
from .results import HOLD, Comparison, Curve, Point, Prediction, plain
from .statistics import Interval, bounded, first_at_or_below, geometric_mean


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


_LEAST_GAIN = 0.99  # loss after / before; what is gained above it is too little to ask who else gains it


@dataclass(frozen=True)
class StepsToTarget:
    """When a contender reached what hold reaches within its budget, per random seed.

    A random seed that never got there counts as if it had arrived at the first point of measurement after the budget
    (for the time: a stride of measurement later), so that the speed-up is then at best what is shown; `never` says
    how many did so.

    Attributes:
        steps: steps until the validation loss was at or below the target; None where it never was.
        counted: the same, with the steps that stand for never.
        counted_steps: their geometric mean.
        speed_up: hold's steps / the contender's, geometric mean over random seeds.
        speed_up_in_time: the same for seconds of training, predictions and guard included.
    """

    steps: tuple[int | None, ...]
    counted: tuple[int, ...]
    counted_steps: float
    speed_up: Interval
    speed_up_in_time: Interval

    @property
    def never(self) -> int:
        """Random seeds that never got there [count]."""
        return self.steps.count(None)

    @property
    def fewer_steps(self) -> float:
        """Share of hold's steps that were not needed [%]; negative where it took more."""
        return 100 * (1 - 1 / self.speed_up.mean)


@dataclass(frozen=True)
class ContenderSummary:
    """One contender in figures.

    Attributes:
        early, full: arrival at what hold reaches within half of the budget, and within all of it.
        final_loss: validation loss at the end of the budget, mean over random seeds.
        nowcasts, accepted: guarded nowcasts proposed and kept [count].
        guard_passes: forward passes over the guard's batch [count].
        before, after: validation loss of W_t and of one unguarded prediction; geometric means.
        gain: their ratio (below 1: a prediction lowers the loss); geometric mean.
        error: squared error of a prediction relative to copying W_t; geometric mean.
    """

    contender: str
    early: StepsToTarget
    full: StepsToTarget
    final_loss: float
    nowcasts: int
    accepted: int
    guard_passes: int
    before: float | None
    after: float | None
    gain: Interval | None
    error: float | None


@dataclass(frozen=True)
class ControlResult:
    """How a control scored beside the real prediction.

    Attributes:
        kept: share of the real prediction's gain (in log loss) that the control still has; None where there is no
            gain to keep.
        fails: whether it fails, as it must: less than half of the gain is kept. None as above.
    """

    control: str
    after: float
    gain: Interval
    kept: float | None
    fails: bool | None


@dataclass(frozen=True)
class Summary:
    """All published figures of a comparison."""

    comparison: Comparison

    @cached_property
    def standings(self) -> list[ContenderSummary]:
        """One per contender."""
        return [self._standing(contender) for contender in self.comparison.contenders]

    @cached_property
    def judged(self) -> ContenderSummary:
        """The judged optimizer's."""
        return next(standing for standing in self.standings if standing.contender == self.comparison.judged)

    @cached_property
    def controls(self) -> list[ControlResult]:
        """One per control that was run."""
        return [self._control(name) for name in self.comparison.controls]

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"standings": plain(self.standings), "controls": plain(self.controls)}

    def _standing(self, contender: str) -> ContenderSummary:
        curves = self.comparison.curves_of(contender)
        events = [event for curve in curves for event in curve.events]
        predictions = self.comparison.predictions_of(contender)
        errors = [p.error for p in predictions if p.error is not None]
        return ContenderSummary(
            contender=contender,
            early=self._steps_to_target(curves, 0.5),
            full=self._steps_to_target(curves, 1.0),
            final_loss=math.fsum(curve.losses[-1] for curve in curves) / len(curves),
            nowcasts=len(events),
            accepted=sum(event.accepted for event in events),
            guard_passes=sum(curve.guard_passes for curve in curves),
            before=_mean([p.loss_before for p in predictions]),
            after=_mean([p.loss_after for p in predictions]),
            gain=_gain(predictions),
            error=_mean(errors),
        )

    def _steps_to_target(self, curves: Sequence[Curve], share: float) -> StepsToTarget:
        holds = self.comparison.curves_of(HOLD)
        targets = [target(hold, share) for hold in holds]
        places = [first_at_or_below(loss, curve.losses) for loss, curve in zip(targets, curves, strict=True)]
        ends = [_point_at(curve, place) for curve, place in zip(curves, places, strict=True)]
        starts = [_point_at(hold, hold.losses.index(loss)) for hold, loss in zip(holds, targets, strict=True)]
        pairs = list(zip(starts, ends, strict=True))
        return StepsToTarget(
            steps=tuple(None if place is None else end.step for place, end in zip(places, ends, strict=True)),
            counted=tuple(end.step for end in ends),
            counted_steps=geometric_mean([end.step for end in ends]).mean,
            speed_up=geometric_mean([start.step / end.step for start, end in pairs]),
            speed_up_in_time=geometric_mean([start.seconds / bounded(end.seconds) for start, end in pairs]),
        )

    def _control(self, name: str) -> ControlResult:
        predictions = self.comparison.predictions_of(name)
        gain, real = _gain(predictions), self.judged.gain
        assert gain is not None, "a control stands in the list because it predicted"
        kept = math.log(gain.mean) / math.log(real.mean) if real is not None and real.mean < _LEAST_GAIN else None
        after = _mean([p.loss_after for p in predictions])
        return ControlResult(name, after or math.inf, gain, kept, None if kept is None else kept < 0.5)


def target(hold: Curve, share: float) -> float:
    """The best validation loss that the hold twin reaches within a share of its budget."""
    return min(point.loss for point in hold.points if point.step <= share * hold.points[-1].step)


def _point_at(curve: Curve, place: int | None) -> Point:
    """The point at a place; for none, the first that would have followed the budget."""
    if place is not None:
        return curve.points[place]
    last, first = curve.points[-1], curve.points[0]
    return last._replace(step=last.step + first.step, seconds=last.seconds * (1 + first.step / last.step))


def _gain(predictions: Sequence[Prediction]) -> Interval | None:
    """Loss after / loss before; the interval is over random seeds, whose predictions are averaged first."""
    by_seed: dict[int, list[float]] = {}
    for prediction in predictions:
        by_seed.setdefault(prediction.seed, []).append(bounded(prediction.loss_after) / prediction.loss_before)
    return geometric_mean([geometric_mean(ratios).mean for ratios in by_seed.values()]) if by_seed else None


def _mean(values: Sequence[float]) -> float | None:
    return geometric_mean([bounded(value) for value in values]).mean if values else None


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
