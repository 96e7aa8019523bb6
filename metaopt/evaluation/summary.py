"""Summary of a comparison: selection of learning rates, steps to target, gains, controls, losses after nowcasts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from .config import DELAYS
from .results import HOLD, Comparison, Curve, Point, Prediction, plain
from .statistics import Interval, bounded, first_at_or_below, geometric_mean

_SMALLEST_GAIN = 0.99  # loss after / before; of a smaller improvement no share is computed
_MOST_KEPT = 0.5  # share of the gain below which a control fails


def at_rate(comparison: Comparison, rate: str) -> Comparison:
    """All contenders at one learning rate."""
    return replace(
        comparison,
        curves=tuple(curve for curve in comparison.curves if curve.rate == rate),
        predictions=tuple(prediction for prediction in comparison.predictions if prediction.rate == rate),
    )


def best_rate(comparison: Comparison, contender: str) -> str:
    """The learning rate at which the lowest validation loss of a contender, averaged over random seeds, is lowest.

    The validation loss also measures the contenders, so this choice favours all of them alike.
    """
    curves = comparison.curves_of(contender)
    means = {rate: fmean(curve.best for curve in curves if curve.rate == rate) for rate in comparison.rates}
    return min(means, key=lambda rate: means[rate])


def at_best_rates(comparison: Comparison) -> Comparison:
    """Each contender at its own best learning rate; single predictions at that of the candidate."""
    best = {contender: best_rate(comparison, contender) for contender in comparison.contenders}
    predictions = (p for p in comparison.predictions if p.rate == best[comparison.candidate])
    curves = (c for name, rate in best.items() for c in comparison.curves_of(name) if c.rate == rate)
    return replace(comparison, curves=tuple(curves), predictions=tuple(predictions))


@dataclass(frozen=True)
class StepsToTarget:
    """Steps until a contender reaches the best loss of hold, for each random seed.

    A run that never reaches it counts as if it had reached it at the first measurement after the budget (its time grows
    by the same share), so the true speed-up is at most the stated one; `never` is the number of such runs.

    Attributes:
        steps: steps until the validation loss is at or below the target; None where it never is.
        counted: the same, with the substitute for None.
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
        """Random seeds that never reach the target [count]."""
        return self.steps.count(None)

    @property
    def fewer_steps(self) -> float:
        """Share of hold's steps that the contender does not need [%]; negative where it needs more."""
        return 100 * (1 - 1 / self.speed_up.mean)


@dataclass(frozen=True)
class ContenderSummary:
    """The figures of one contender.

    Attributes:
        early, full: steps to the best loss of hold within half of the budget, and within all of it.
        final_loss: validation loss at the end of the budget, mean over random seeds.
        nowcasts, accepted: guarded nowcasts that were proposed, and accepted [count].
        guard_passes: forward passes over the guard's batch [count].
        before, after: validation loss of W_t and of one unguarded prediction; geometric means.
        gain: their ratio (below 1: a prediction lowers the loss); geometric mean.
        error: squared error of a prediction relative to that of W_t; geometric mean.
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
    """The result of a control, compared with the real prediction.

    Attributes:
        kept: share of the real prediction's gain (in log loss) that remains; None where the gain is below 1 %.
        fails: whether the control fails, as it must: less than half of the gain remains. None as for `kept`.
    """

    control: str
    after: float
    gain: Interval
    kept: float | None
    fails: bool | None


@dataclass(frozen=True)
class Summary:
    """All published figures of a comparison.

        summary = Summary(at_best_rates(comparison))
        print(summary.candidate.full.speed_up, [control.fails for control in summary.controls])

    Args:
        comparison: with one learning rate per contender.
    """

    comparison: Comparison

    @cached_property
    def contenders(self) -> list[ContenderSummary]:
        """One summary per contender."""
        return [self._contender(contender) for contender in self.comparison.contenders]

    @property
    def candidate(self) -> ContenderSummary:
        """The summary of the evaluated optimizer."""
        return self.of(self.comparison.candidate)

    @cached_property
    def controls(self) -> list[ControlResult]:
        """One result per control."""
        return [self._control(name) for name in self.comparison.controls]

    def of(self, contender: str) -> ContenderSummary:
        """The summary of a contender."""
        return next(summary for summary in self.contenders if summary.contender == contender)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"standings": plain(self.contenders), "controls": plain(self.controls)}

    def _contender(self, contender: str) -> ContenderSummary:
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
        targets = [_target(hold, share) for hold in holds]
        reached = [first_at_or_below(target, curve.losses) for target, curve in zip(targets, curves, strict=True)]
        ours = [_point_at(curve, index) for curve, index in zip(curves, reached, strict=True)]
        theirs = [_point_at(hold, hold.losses.index(target)) for hold, target in zip(holds, targets, strict=True)]
        pairs = list(zip(theirs, ours, strict=True))
        return StepsToTarget(
            steps=tuple(None if index is None else point.step for index, point in zip(reached, ours, strict=True)),
            counted=tuple(point.step for point in ours),
            counted_steps=geometric_mean([point.step for point in ours]).mean,
            speed_up=geometric_mean([hold.step / point.step for hold, point in pairs]),
            speed_up_in_time=geometric_mean([hold.seconds / bounded(point.seconds) for hold, point in pairs]),
        )

    def _control(self, name: str) -> ControlResult:
        predictions = self.comparison.predictions_of(name)
        gain, real = _gain(predictions), self.candidate.gain
        assert gain is not None, "each listed control has predictions"
        kept = math.log(gain.mean) / math.log(real.mean) if real is not None and real.mean < _SMALLEST_GAIN else None
        after = _mean([p.loss_after for p in predictions])
        return ControlResult(name, after or math.inf, gain, kept, None if kept is None else kept < _MOST_KEPT)


def _target(hold: Curve, share: float) -> float:
    """The lowest validation loss of the hold run within a share of its budget."""
    return min(point.loss for point in hold.points if point.step <= share * hold.points[-1].step)


def _point_at(curve: Curve, index: int | None) -> Point:
    """The point at an index; for None, the first point after the budget."""
    if index is not None:
        return curve.points[index]
    last, first = curve.points[-1], curve.points[0]
    return last._replace(step=last.step + first.step, seconds=last.seconds * (1 + first.step / last.step))


def _gain(predictions: Sequence[Prediction]) -> Interval | None:
    """Loss after / loss before; the interval is over random seeds, after a mean over the predictions of each seed."""
    by_seed: dict[int, list[float]] = {}
    for prediction in predictions:
        by_seed.setdefault(prediction.seed, []).append(bounded(prediction.loss_after) / prediction.loss_before)
    return geometric_mean([geometric_mean(ratios).mean for ratios in by_seed.values()]) if by_seed else None


def _mean(values: Sequence[float]) -> float | None:
    return geometric_mean([bounded(value) for value in values]).mean if values else None


@dataclass(frozen=True)
class LossAfterNowcast:
    """The validation loss of a contender some steps after its nowcasts, relative to hold's at the same steps.

    Attributes:
        delay: steps since the nowcast, accepted or not [steps].
        loss, hold_loss: validation loss of the contender, and of hold at the same learning rate; geometric means.
        ratio: loss / hold_loss (below 1: lower than hold's); geometric mean, the interval over random seeds.
    """

    contender: str
    delay: int
    loss: float
    hold_loss: float
    ratio: Interval


def losses_after_nowcasts(comparison: Comparison) -> list[LossAfterNowcast]:
    """The losses of each contender that nowcasts, at its best learning rate, for each delay within the budget."""
    found = []
    for contender in comparison.contenders:
        same = at_rate(comparison, best_rate(comparison, contender))
        pairs = list(zip(same.curves_of(contender), same.curves_of(HOLD), strict=True))
        if any(curve.events for curve, _ in pairs):
            found += [loss for delay in DELAYS if (loss := _loss_after(contender, delay, pairs)) is not None]
    return found


def _loss_after(contender: str, delay: int, pairs: Sequence[tuple[Curve, Curve]]) -> LossAfterNowcast | None:
    ours, holds, ratios = [], [], []
    for curve, hold in pairs:
        steps = {event.step + delay for event in curve.events}
        measured = [index for index, step in enumerate(curve.steps) if step in steps]
        if measured:
            ours.append(geometric_mean([bounded(curve.losses[index]) for index in measured]).mean)
            holds.append(geometric_mean([bounded(hold.losses[index]) for index in measured]).mean)
            ratios.append(ours[-1] / holds[-1])
    if not ratios:
        return None
    return LossAfterNowcast(
        contender, delay, geometric_mean(ours).mean, geometric_mean(holds).mean, geometric_mean(ratios)
    )
