"""What a comparison has found: a row for each kind of weights, verdicts, and what a reader should know."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from ..core.text import counted
from ..evaluation.statistics import Interval, first_at_or_below, geometric_mean
from .judgement import Judgement, Word, difference_text, judge
from .results import Arm, TrainingComparison, TrialResult

_SPEED = {Word.HELPS: "faster", Word.HARMS: "slower", Word.NOT_SHOWN: "not shown to differ"}


@dataclass(frozen=True)
class Row:
    """The results of one kind of weights.

    Attributes:
        name: of the contender.
        steps: mean over random seeds [steps].
        seconds: mean over random seeds; None for averages, which cost next to nothing.
        overhead: time that nowcasts added, as a fraction of that of the steps, mean over random seeds; None without.
        values: the metric by random seed.
        against_plain: the verdict against the plain training.
    """

    name: str
    steps: float | None
    seconds: float | None
    overhead: float | None
    values: Mapping[int, float]
    against_plain: Judgement | None

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN without one."""
        finite = [value for value in self.values.values() if math.isfinite(value)]
        return fmean(finite) if finite else math.nan


class ToEqualLoss(NamedTuple):
    """What trainings with nowcasts need to the best reported loss of their twins, over what these need.

    Attributes:
        steps: ratio of the steps, below 1 with fewer.
        seconds: ratio of the seconds; None if an earlier comparison ran some of the trainings.
        reached: random seeds that reached it [count]; the ratios are over these.
        pairs: random seeds [count].
    """

    steps: Interval
    seconds: Interval | None
    reached: int
    pairs: int


class ComparisonSummary:
    """Rows and verdicts of a comparison.

    Args:
        comparison: all trainings.
    """

    def __init__(self, comparison: TrainingComparison) -> None:
        self.comparison = comparison

    @cached_property
    def verdict(self) -> Judgement:
        """Whether nowcasts help: the metric of the last weights, with nowcasts against without.

        Averages and the weights that the guard prefers have rows of their own. A verdict on the best of several rows
        would be a false alarm more often.
        """
        return self._judge(self._values(Arm.PLAIN), self._values(Arm.NOWCAST))

    @cached_property
    def seconds(self) -> Judgement:
        """Whether trainings with nowcasts are shorter or longer, of the pairs that one comparison ran."""
        plain, nowcast = (
            [self.comparison.of(arm)[seed].seconds for seed in self.comparison.timed_seeds] for arm in Arm
        )
        return judge("seconds", plain, nowcast)

    @cached_property
    def best_average(self) -> str | None:
        """The running average of the plain trainings with the best mean; None if there is none.

        It is chosen on the random seeds on which it is compared, which favours it slightly.
        """
        rows = [row for row in self._averages(Arm.PLAIN) if math.isfinite(row.mean)]
        sign = 1 if self.comparison.lower_is_better else -1
        return min(rows, key=lambda row: sign * row.mean).name if rows else None

    @cached_property
    def against_average(self) -> Judgement | None:
        """Nowcasts against the best running average of their plain twins; None if there is none."""
        if self.best_average is None:
            return None
        return self._judge(self._values(Arm.PLAIN, self.best_average), self._values(Arm.NOWCAST))

    @cached_property
    def rows(self) -> list[Row]:
        """The plain training, its running averages, that with nowcasts, its average, and what its guard prefers."""
        rows = []
        for arm in Arm:
            results = list(self.comparison.of(arm).values())
            steps = fmean(each.steps for each in results) if results else None
            seconds = fmean(each.seconds for each in results) if results else None
            judged = None if arm is Arm.PLAIN else self.verdict
            overheads = [each.overhead for each in results if each.overhead is not None]
            overhead = fmean(overheads) if overheads else None
            rows += [Row(str(arm), steps, seconds, overhead, self._values(arm), judged), *self._averages(arm)]
        return rows

    def _averages(self, arm: Arm) -> list[Row]:
        names = dict.fromkeys(name for each in self.comparison.of(arm).values() for name in each.averaged)
        rows = []
        for name in names:
            values = self._values(arm, name)
            rows.append(Row(name, None, None, None, values, self._judge(self._values(Arm.PLAIN), values)))
        return rows

    @cached_property
    def to_equal_loss(self) -> ToEqualLoss | None:
        """What nowcasts need to the best reported loss of their twins; None without reported losses."""
        plain, nowcast = self.comparison.of(Arm.PLAIN), self.comparison.of(Arm.NOWCAST)
        pairs = [(plain[seed], nowcast[seed]) for seed in self.comparison.paired_seeds]
        pairs = [(one, other) for one, other in pairs if one.curve and other.curve]
        ratios = [ratio for one, other in pairs if (ratio := _ratios(one, other)) is not None]
        if not ratios:
            return None
        steps, seconds = (geometric_mean(each) for each in zip(*ratios, strict=True))
        is_timed = self.comparison.timed_seeds == self.comparison.paired_seeds
        return ToEqualLoss(steps, seconds if is_timed else None, len(ratios), len(pairs))

    @property
    def lines(self) -> dict[str, str]:
        """The verdicts in a sentence each, by label."""
        found = {"verdict": self.verdict.sentence, "seconds": self._seconds_sentence()}
        if self.against_average is not None:
            found[f"against {self.best_average}"] = self.against_average.sentence
        if (needed := self.to_equal_loss) is not None:
            some = "" if needed.reached == needed.pairs else f"; {needed.pairs - needed.reached} never reached it"
            seconds = "" if needed.seconds is None else f" and {_ratio_text(needed.seconds)} of the seconds"
            found["to equal loss"] = (
                f"{_ratio_text(needed.steps)} of the steps{seconds} to the best reported loss of plain "
                f"({needed.reached} of {counted(needed.pairs, 'random seed')}{some})"
            )
        found["nowcasts"] = self._nowcasts_sentence()
        if kinds := [each.kept for each in self.comparison.of(Arm.NOWCAST).values() if each.kept]:
            count = kinds.count("averaged")
            found["best weights"] = f"the guard prefers the average in {count} of {counted(len(kinds), 'training')}"
        return found

    @property
    def notes(self) -> list[str]:
        """What a reader should know: failures, doubts about the twins, the width of the interval."""
        missing = next((each.reason for each in self.comparison.of(Arm.PLAIN).values() if each.reason), None)
        return [
            *(f"{failure.sentence}." for failure in self.comparison.failures),
            *self.comparison.doubts,
            *self.verdict.hints,
            *([f"No row for an EMA of the plain weights: {missing}."] if missing else []),
        ]

    def to_mapping(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "train": self.comparison.name,
            "metric": self.comparison.metric,
            "lower_is_better": self.comparison.lower_is_better,
            "verdict": str(self.verdict.word),
            "lines": self.lines,
            "difference": _judged(self.verdict),
            "seconds": _judged(self.seconds),
            "against_average": None if self.against_average is None else _judged(self.against_average),
            "contenders": [
                {
                    "name": row.name,
                    "steps": row.steps,
                    "seconds": row.seconds,
                    "overhead": row.overhead,
                    "mean": row.mean,
                    "values": {str(seed): value for seed, value in row.values.items()},
                }
                for row in self.rows
            ],
            "nowcasts": [_nowcasts(result) for result in self.comparison.of(Arm.NOWCAST).values()],
            "failures": [failure._asdict() for failure in self.comparison.failures],
            "notes": self.notes,
        }

    def _judge(self, old: Mapping[int, float], new: Mapping[int, float]) -> Judgement:
        asked = self.comparison
        return judge(asked.metric, *_paired(old, new), lower_is_better=asked.lower_is_better, least=asked.least)

    def _values(self, arm: Arm, average: str | None = None) -> dict[int, float]:
        """The metric by random seed, of the weights at the end or of an average of them."""
        metric, results, found = self.comparison.metric, self.comparison.of(arm), {}
        for seed in self.comparison.seeds:
            if seed in results:
                metrics = results[seed].metrics if average is None else results[seed].averaged.get(average, {})
                if metric in metrics:
                    found[seed] = metrics[metric]
        return found

    def _nowcasts_sentence(self) -> str:
        events = [event for result in self.comparison.of(Arm.NOWCAST).values() for event in result.events]
        accepted, followed = sum(event.accepted for event in events), sum(event.followed for event in events)
        return f"{len(events):,} took place, {accepted:,} accepted, {followed:,} moved the weights"

    def _seconds_sentence(self) -> str:
        judged = self.seconds
        if judged.difference is None:
            apart = self.comparison.paired_seeds and not self.comparison.timed_seeds
            return f"{judged.word}: the twins ran at different times" if apart else judged.sentence
        word = _SPEED.get(judged.word, str(judged.word))
        return f"{word}: difference of seconds {difference_text(judged.difference, judged.unit)}"


def _paired(old: Mapping[int, float], new: Mapping[int, float]) -> tuple[list[float], list[float]]:
    seeds = [seed for seed in old if seed in new]
    return [old[seed] for seed in seeds], [new[seed] for seed in seeds]


def _ratios(plain: TrialResult, nowcast: TrialResult) -> tuple[float, float] | None:
    """Steps and seconds of a training to the best reported loss of its twin, over those of the twin."""
    finite = [point for point in plain.curve if math.isfinite(point.loss) and point.step > 0]
    if not finite:
        return None
    best = min(finite, key=lambda point: point.loss)
    points = [point for point in nowcast.curve if point.step > 0]
    index = first_at_or_below(best.loss, [point.loss for point in points])
    return None if index is None else (points[index].step / best.step, points[index].seconds / best.seconds)


def _ratio_text(ratio: Interval) -> str:
    mean, low, high = ratio
    return f"{mean:.2f}" if low is None or high is None else f"{mean:.2f} ({low:.2f}–{high:.2f})"


def _judged(judgement: Judgement) -> dict[str, Any]:
    mean, low, high = judgement.difference or (None, None, None)
    return {
        "word": str(judgement.word),
        "mean": mean,
        "low": low,
        "high": high,
        "unit": judgement.unit,
        "pairs": judgement.pairs,
        "noise": judgement.noise,
    }


def _nowcasts(result: TrialResult) -> dict[str, int]:
    return {
        "seed": result.seed,
        "nowcasts": len(result.events),
        "accepted": sum(event.accepted for event in result.events),
        "followed": sum(event.followed for event in result.events),
    }


def comparison_table(summary: ComparisonSummary, most: int = 5) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of contenders.

    Args:
        most: random seeds with a column of their own [count]; with more there are only means.
    """
    comparison = summary.comparison
    seeds: Sequence[int] = comparison.seeds if len(comparison.seeds) <= most else ()
    direction = "lower" if comparison.lower_is_better else "higher"
    metric = f"{comparison.metric} ({direction} is better)"
    heads = ["contender", "steps", "seconds", "overhead", metric, "difference to plain"]
    rows = []
    for row in summary.rows:
        judged = row.against_plain
        difference = difference_text(judged.difference, judged.unit) if judged and judged.difference else "–"
        steps = "–" if row.steps is None else f"{row.steps:,.0f}"
        seconds = "–" if row.seconds is None else f"{row.seconds:.2f}" if row.seconds < 100 else f"{row.seconds:,.0f}"
        overhead = "–" if row.overhead is None else f"{100 * row.overhead:.2g} %"
        mean = "–" if math.isnan(row.mean) else _cell(row.mean)
        values = (_cell(row.values.get(seed)) for seed in seeds)
        rows.append([row.name, steps, seconds, overhead, mean, difference, *values])
    return [*heads, *(f"seed {seed}" for seed in seeds)], rows


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
