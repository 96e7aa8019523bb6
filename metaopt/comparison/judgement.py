"""The verdict on paired measurements: whether one of two is better, by Student's 95 % interval of the differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev

from ..core.text import counted
from ..evaluation.statistics import Interval, mean_interval
from .power import MOST_SEEDS, seeds_needed

NEGLIGIBLE = 0.5
"""Size of a difference that counts [% of the value without nowcasts]."""

_FEW = 5  # random seeds below which a t interval is wide


class Word(StrEnum):
    """What a comparison has shown."""

    HELPS = "helps"
    HARMS = "harms"
    NO_DIFFERENCE = "no difference"
    NOT_SHOWN = "not shown to help"
    NO_VERDICT = "no verdict"


@dataclass(frozen=True)
class Judgement:
    """What paired measurements have shown about a metric.

    Attributes:
        word: the verdict.
        metric: name of the metric.
        difference: mean of the new value minus the old one, with its 95 % interval, in `unit`; None without a pair.
        unit: `%` of the mean of the old values; empty if these are not all positive, or not all negative.
        pairs: random seeds that were compared [count].
        not_finite: random seeds of which only the new training, only the old one, or both ended without a finite
            value [count].
        noise: standard deviation of the differences between random seeds; None with fewer than two.
    """

    word: Word
    metric: str
    difference: Interval | None
    unit: str
    pairs: int
    not_finite: tuple[int, int, int]
    noise: float | None

    @property
    def sentence(self) -> str:
        """The verdict with its figures: `not shown to help: difference of loss +0.4 ± 1.1 %`."""
        if self.word is Word.HARMS and (new := self.not_finite[0]):
            return f"{self.word}: {counted(new, 'training')} ended without a finite {self.metric}"
        if self.difference is None:
            lost = sum(self.not_finite)
            return f"{self.word}: " + (
                f"{counted(lost, 'pair')} without a finite {self.metric}" if lost else "no pair is complete"
            )
        return f"{self.word}: {self.figure}"

    @property
    def figure(self) -> str:
        """The difference with its interval, in words."""
        assert self.difference is not None
        return f"difference of {self.metric} {difference_text(self.difference, self.unit)}"

    @property
    def hints(self) -> list[str]:
        """What a reader should know about the interval, in sentences."""
        found = []
        if self.word is Word.NO_VERDICT and self.pairs == 1:
            found.append("One random seed gives no interval: give --seeds 3 or more.")
        if self.word is Word.NOT_SHOWN:
            found.append(self._seeds_hint())
        if any(self.not_finite):
            new, old, both = self.not_finite
            found.append(
                f"Pairs without a finite {self.metric}: {new} only with nowcasts, {old} only without, {both} in both "
                "trainings. They are not part of the interval."
            )
        return found

    def _seeds_hint(self) -> str:
        assert self.difference is not None
        assert self.noise is not None
        wide = f"With {counted(self.pairs, 'random seed')} the interval is wide. " if self.pairs < _FEW else ""
        size = f"{abs(self.difference.mean):.2g} {self.unit}".rstrip()
        needed = seeds_needed(self.difference.mean, self.noise)
        if needed is None:
            return f"{wide}More than {MOST_SEEDS:,} random seeds would be needed to show a difference of {size}."
        if needed <= self.pairs:  # the noise of few differences is uncertain
            needed = self.pairs + 1
        return (
            f"{wide}If the true difference is {size} with this noise, {counted(needed, 'random seed')} would show it "
            "(80 % power)."
        )


def judge(
    metric: str, old: Sequence[float], new: Sequence[float], *, lower_is_better: bool = True, least: float = NEGLIGIBLE
) -> Judgement:
    """Judge whether new values are better than old ones.

        judge("loss", [1.0, 1.1, 0.9], [0.9, 1.0, 0.8]).sentence  # helps: difference of loss −10 ± 0 %

    There is no difference if the 95 % interval of the paired differences lies within ± `least`. Else it helps or harms
    if the interval excludes zero. It harms, too, if more of the new trainings than of the old ones end without a finite
    value.

    Args:
        metric: its name.
        old: values without what is judged, one per random seed.
        new: values with it, of the same random seeds.
        lower_is_better: whether lower values are better.
        least: size of a difference that counts [%].
    """
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if math.isfinite(a) and math.isfinite(b)]
    broken = sum(math.isfinite(a) and not math.isfinite(b) for a, b in zip(old, new, strict=True))
    mended = sum(not math.isfinite(a) and math.isfinite(b) for a, b in zip(old, new, strict=True))
    not_finite = broken, mended, len(old) - len(pairs) - broken - mended
    if not pairs:
        word = Word.HARMS if broken > mended else Word.NO_VERDICT
        return Judgement(word, metric, None, "", 0, not_finite, None)
    scale, unit = _scale([a for a, _ in pairs])
    differences = [(b - a) * scale for a, b in pairs]
    interval = mean_interval(differences)
    noise = stdev(differences) if len(differences) > 1 else None
    word = _word(interval, unit, lower_is_better, least) if broken <= mended else Word.HARMS
    return Judgement(word, metric, interval, unit, len(pairs), not_finite, noise)


def difference_text(difference: Interval, unit: str) -> str:
    """A difference with half of its interval: `−5.2 ± 1.4 %`."""
    mean, low, _ = difference
    half = "" if low is None else f" ± {_short(mean - low)}"
    return f"{signed(mean)}{half} {unit}".rstrip()


def signed(value: float) -> str:
    """A number with its sign, in two or more digits."""
    text = _short(abs(value))
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"


def _short(value: float) -> str:
    if value < 1e-6:  # rounding errors
        return "0"
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value >= 0.01 else f"{value:.1g}"


def _scale(old: Sequence[float]) -> tuple[float, str]:
    """What differences are multiplied with, and their unit: % of the old values where these have one sign."""
    if all(value > 0 for value in old) or all(value < 0 for value in old):
        return 100 / abs(fmean(old)), "%"
    return 1.0, ""


def _word(difference: Interval, unit: str, lower_is_better: bool, least: float) -> Word:
    mean, low, high = difference
    if low is None or high is None:
        return Word.NO_VERDICT
    if low == high == 0 or (unit and -least < low and high < least):
        return Word.NO_DIFFERENCE
    if low > 0 or high < 0:
        return Word.HELPS if (mean < 0) == lower_is_better else Word.HARMS
    return Word.NOT_SHOWN
