"""Summary of a comparison: best learning rates, steps to target, loss ratios, controls, and losses after nowcasts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from .config import DELAYS
from .results import HOLD, Comparison, Curve, Point, Prediction, plain
from .statistics import Interval, bounded, first_at_or_below, geometric_mean

_MAX_RATIO = 0.99  # loss after / before; above it, `kept` is not computed: the improvement is too small
_MAX_KEPT = 0.5  # a control fails if `kept` is lower


def at_rate(comparison: Comparison, rate: str) -> Comparison:
    """Select the curves and predictions of one learning rate."""
    return replace(
        comparison,
        curves=tuple(curve for curve in comparison.curves if curve.rate == rate),
        predictions=tuple(prediction for prediction in comparison.predictions if prediction.rate == rate),
    )


def best_rate(comparison: Comparison, contender: str) -> str:
    """The best learning rate of a contender.

    For each of its learning rates, the lowest validation loss of each curve is averaged over the random seeds. The
    learning rate with the lowest average is the best. Contenders are then compared on the same validation loss, so the
    selection has an optimistic bias. The bias affects every contender.
    """
    curves = comparison.curves_of(contender)
    rates = dict.fromkeys(curve.rate for curve in curves)
    means = {rate: fmean(curve.best for curve in curves if curve.rate == rate) for rate in rates}
    return min(means, key=lambda rate: means[rate])


def at_best_rates(comparison: Comparison) -> Comparison:
    """Select the curves at the best learning rate of each contender, and the predictions at that of the candidate."""
    best = {contender: best_rate(comparison, contender) for contender in comparison.contenders}
    predictions = (p for p in comparison.predictions if p.rate == best[comparison.candidate])
    curves = (c for name, rate in best.items() for c in comparison.curves_of(name) if c.rate == rate)
    return replace(comparison, curves=tuple(curves), predictions=tuple(predictions))


@dataclass(frozen=True)
class StepsToTarget:
    """Number of steps until a contender reaches the target: the lowest validation loss of the hold run.

    If a run does not reach the target, its number of steps is set to the next measurement step after the budget, and
    its training time is extrapolated linearly. The reported speed-up is then an upper bound. `never` is the number of
    such runs.

    Attributes:
        steps: number of steps for each random seed; None if the run does not reach the target.
        counted: `steps`, with each None replaced as described above.
        counted_steps: geometric mean of `counted`.
        speed_up: steps of hold / `counted`; geometric mean over random seeds.
        speed_up_in_time: the same ratio of training times, which include predictions and the guard.
    """

    steps: tuple[int | None, ...]
    counted: tuple[int, ...]
    counted_steps: float
    speed_up: Interval
    speed_up_in_time: Interval

    @property
    def never(self) -> int:
        """Number of runs that do not reach the target [count]."""
        return self.steps.count(None)

    @property
    def fewer_steps(self) -> float:
        """Reduction of the number of steps relative to hold [%]; negative if the contender needs more steps."""
        return 100 * (1 - 1 / self.speed_up.mean)


@dataclass(frozen=True)
class ContenderSummary:
    """The results of one contender. W_t denotes the weights from which a prediction starts.

    Attributes:
        early, full: steps to the target; the target is the lowest loss of the hold run in the first half of the budget
            (early), or in the whole budget (full).
        final_loss: validation loss after the last step; mean over random seeds.
        nowcasts, accepted: number of nowcasts with a guard, and how many of them the guard accepted [count].
        guard_passes: number of forward passes over the guard's examples [count].
        before, after: validation loss of W_t, and of a single prediction without a guard; geometric means.
        gain: after / before; geometric mean. Below 1, the prediction lowers the loss.
        error: squared error of a prediction / squared error of W_t; geometric mean.
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
    """The result of a negative control: predictions from corrupted inputs.

    Attributes:
        control: name of the control.
        after: validation loss of the predictions; geometric mean.
        gain: `after` / validation loss of W_t; geometric mean.
        kept: decrease of log(loss), as a fraction of the decrease without corruption; None if the loss decreases by
            less than 1 % without corruption.
        fails: whether `kept` is below 0.5, as expected of a negative control; None if `kept` is None.
    """

    control: str
    after: float
    gain: Interval
    kept: float | None
    fails: bool | None


@dataclass(frozen=True)
class Summary:
    """All reported results of a comparison.

        summary = Summary(at_best_rates(comparison))
        print(summary.candidate.full.speed_up, [control.fails for control in summary.controls])

    Args:
        comparison: measurements with one learning rate per contender.
    """

    comparison: Comparison

    @cached_property
    def contenders(self) -> list[ContenderSummary]:
        """The summaries of all contenders."""
        return [self._contender(contender) for contender in self.comparison.contenders]

    @property
    def candidate(self) -> ContenderSummary:
        """The summary of the evaluated optimizer."""
        return self.of(self.comparison.candidate)

    @cached_property
    def controls(self) -> list[ControlResult]:
        """The results of all controls."""
        return [self._control(name) for name in self.comparison.controls]

    def of(self, contender: str) -> ContenderSummary:
        """The summary of a contender."""
        return next(summary for summary in self.contenders if summary.contender == contender)

    def to_mapping(self) -> dict[str, Any]:
        """Convert the summary to a JSON-serializable dictionary."""
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

    def _steps_to_target(self, curves: Sequence[Curve], fraction: float) -> StepsToTarget:
        hold_curves = self.comparison.curves_of(HOLD)
        targets = [_target(hold, fraction) for hold in hold_curves]
        reached = [first_at_or_below(target, curve.losses) for target, curve in zip(targets, curves, strict=True)]
        contender_points = [_point_at(curve, index) for curve, index in zip(curves, reached, strict=True)]
        hold_points = [
            _point_at(hold, hold.losses.index(target)) for hold, target in zip(hold_curves, targets, strict=True)
        ]
        pairs = list(zip(hold_points, contender_points, strict=True))
        return StepsToTarget(
            steps=tuple(
                None if index is None else curve.steps[index] for curve, index in zip(curves, reached, strict=True)
            ),
            counted=tuple(point.step for point in contender_points),
            counted_steps=geometric_mean([point.step for point in contender_points]).mean,
            speed_up=geometric_mean([hold.step / point.step for hold, point in pairs]),
            speed_up_in_time=geometric_mean([hold.seconds / bounded(point.seconds) for hold, point in pairs]),
        )

    def _control(self, name: str) -> ControlResult:
        predictions = self.comparison.predictions_of(name)
        gain, candidate_gain = _gain(predictions), self.candidate.gain
        assert gain is not None, "every control has predictions"
        kept = None
        if candidate_gain is not None and candidate_gain.mean < _MAX_RATIO:
            kept = math.log(gain.mean) / math.log(candidate_gain.mean)
        after = _mean([p.loss_after for p in predictions])
        return ControlResult(name, after or math.inf, gain, kept, None if kept is None else kept < _MAX_KEPT)


def _target(hold: Curve, fraction: float) -> float:
    """The lowest validation loss in the first part of a hold run; `fraction` is the length of this part."""
    return min(point.loss for point in hold.points if point.step <= fraction * hold.points[-1].step)


def _point_at(curve: Curve, index: int | None) -> Point:
    """The point at an index. For None: the next measurement step after the budget, with an extrapolated time."""
    if index is not None:
        return curve.points[index]
    last, first = curve.points[-1], curve.points[0]
    return last._replace(step=last.step + first.step, seconds=last.seconds * (1 + first.step / last.step))


def _gain(predictions: Sequence[Prediction]) -> Interval | None:
    """Geometric mean of loss after / loss before, over the predictions of each random seed and then over the seeds."""
    by_seed: dict[int, list[float]] = {}
    for prediction in predictions:
        by_seed.setdefault(prediction.seed, []).append(bounded(prediction.loss_after) / prediction.loss_before)
    return geometric_mean([geometric_mean(ratios).mean for ratios in by_seed.values()]) if by_seed else None


def _mean(values: Sequence[float]) -> float | None:
    """The geometric mean of the values, clamped by `bounded`; None for an empty sequence."""
    return geometric_mean([bounded(value) for value in values]).mean if values else None


@dataclass(frozen=True)
class LossAfterNowcast:
    """The validation losses of a contender and of hold, a fixed number of steps after the contender's nowcasts.

    Attributes:
        delay: number of steps after a nowcast, accepted or not [steps].
        loss, hold_loss: validation loss of the contender, and of hold with the same learning rate; geometric means.
        ratio: loss / hold_loss; geometric mean, with a confidence interval over random seeds. Below 1, the loss of the
            contender is lower.
    """

    contender: str
    delay: int
    loss: float
    hold_loss: float
    ratio: Interval


def losses_after_nowcasts(comparison: Comparison) -> list[LossAfterNowcast]:
    """The losses after nowcasts, for each contender with nowcasts and each delay.

    All runs, including hold, use the best learning rate of the contender. Delays without a measured loss are omitted.
    """
    results = []
    for contender in comparison.contenders:
        at_best = at_rate(comparison, best_rate(comparison, contender))
        pairs = list(zip(at_best.curves_of(contender), at_best.curves_of(HOLD), strict=True))
        if any(curve.events for curve, _ in pairs):
            results += [loss for delay in DELAYS if (loss := _loss_after(contender, delay, pairs)) is not None]
    return results


def _loss_after(contender: str, delay: int, pairs: Sequence[tuple[Curve, Curve]]) -> LossAfterNowcast | None:
    losses, hold_losses, ratios = [], [], []
    for curve, hold in pairs:
        steps = {event.step + delay for event in curve.events}
        measured = [index for index, step in enumerate(curve.steps) if step in steps]
        if measured:
            losses.append(geometric_mean([bounded(curve.losses[index]) for index in measured]).mean)
            hold_losses.append(geometric_mean([bounded(hold.losses[index]) for index in measured]).mean)
            ratios.append(losses[-1] / hold_losses[-1])
    if not ratios:
        return None
    return LossAfterNowcast(
        contender, delay, geometric_mean(losses).mean, geometric_mean(hold_losses).mean, geometric_mean(ratios)
    )
