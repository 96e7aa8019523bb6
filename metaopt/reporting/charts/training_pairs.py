"""Charts of a comparison of a user's own training: paired differences, and reported losses."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...comparison.results import Arm, TrialResult
from ...comparison.summary import ComparisonSummary, Row
from ...core.text import counted
from ...figures import canvas, legend, limits_of, note, plain_log, row_labels, spread, styled
from ...figures.colours import BLACK, INK, SKY, VERMILION
from .base import Chart

_ROW = 0.4  # [inches]
_COLOURS = {Arm.PLAIN: BLACK, Arm.NOWCAST: VERMILION}


def training_charts(summary: ComparisonSummary) -> list[Chart]:
    """The paired differences, and the reported losses if there are any."""
    found = [_differences_chart(summary)] if any(_differences(summary, row) for row in _contenders(summary)) else []
    if any(result.curve for result in summary.comparison.results):
        found.append(_curves_chart(summary))
    return found


def _differences_chart(summary: ComparisonSummary) -> Chart:
    title = f"Difference of {summary.comparison.metric} to the training without nowcasts"
    caption = (
        "Each dot is a random seed: the value minus that of its twin without nowcasts, which has the same initial "
        "weights and the same batches. Bars: mean and 95 % interval over random seeds. "
        f"{'Left' if summary.comparison.lower_is_better else 'Right'} of zero is better."
    )
    return Chart("differences", title, caption, partial(_draw_differences, summary, title))


@styled()
def _draw_differences(summary: ComparisonSummary, title: str) -> Figure:
    rows = [row for row in _contenders(summary) if _differences(summary, row)]
    subtitle = f"{summary.comparison.name}, {counted(len(summary.comparison.seeds), 'random seed')}: dots"
    figure, axes = canvas(title, subtitle, 0.8 + _ROW * len(rows))
    (only,) = axes.flat
    unit = ""
    for place, row in enumerate(rows):
        unit = _draw_row(only, place, row, _differences(summary, row)) or unit
    only.axvline(0, color=INK, linewidth=1)
    only.set(xlabel=f"difference [{unit}]" if unit else "difference")
    row_labels(only, [row.name for row in rows])
    return figure


def _draw_row(axes: Axes, place: int, row: Row, differences: Sequence[float]) -> str:
    """Draw a contender. Returns: the unit of its differences."""
    judged = row.against_plain
    assert judged is not None
    assert judged.difference is not None
    colour = VERMILION if "nowcast" in row.name else SKY
    mean, low, high = judged.difference
    axes.plot(differences, spread(place, len(differences)), "o", color=colour, alpha=0.6, markeredgewidth=0)
    if low is not None and high is not None:
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
    axes.plot([mean], [place], "D", color=colour, markersize=5.5)
    note(axes, place, str(judged.word), colour=INK)
    return judged.unit


def _contenders(summary: ComparisonSummary) -> list[Row]:
    return [row for row in summary.rows if row.against_plain is not None]


def _differences(summary: ComparisonSummary, row: Row) -> list[float]:
    """The difference of each random seed, in the unit of the verdict."""
    judged, plain = row.against_plain, next(each for each in summary.rows if each.name == Arm.PLAIN)
    if judged is None or judged.difference is None:
        return []
    pairs = [(plain.values[seed], row.values[seed]) for seed in row.values if seed in plain.values]
    finite = [(old, new) for old, new in pairs if math.isfinite(old) and math.isfinite(new)]
    scale = 100 / abs(sum(old for old, _ in finite) / len(finite)) if judged.unit == "%" else 1.0
    return [(new - old) * scale for old, new in finite]


def _curves_chart(summary: ComparisonSummary) -> Chart:
    caption = (
        "The losses that the function reported. Thin: each random seed; thick: the median over random seeds that "
        "reported at the same steps."
    )
    return Chart("loss_curves", "Reported loss in training", caption, partial(_draw_curves, summary))


@styled()
def _draw_curves(summary: ComparisonSummary) -> Figure:
    figure, axes = canvas("Reported loss in training", summary.comparison.name, 3.4, len(Arm))
    (only,) = axes.flat
    shown: list[float] = []
    for arm in Arm:
        results = [result for result in summary.comparison.of(arm).values() if result.curve]
        for result in results:
            shown += [point.loss for point in result.curve]
            only.plot(*_points(result), color=_COLOURS[arm], linewidth=0.6, alpha=0.4)
        _draw_median(only, arm, results)
    only.set(xlabel="optimizer steps", ylabel="reported loss", ylim=limits_of(shown, 0.04))
    if all(loss > 0 for loss in shown if math.isfinite(loss)):
        plain_log(only, "y")
    else:
        only.autoscale(axis="y")
    legend(figure, only)
    return figure


def _draw_median(axes: Axes, arm: Arm, results: Sequence[TrialResult]) -> None:
    style: dict[str, Any] = {"color": _COLOURS[arm], "linewidth": 2.0, "label": str(arm)}
    steps = {tuple(point.step for point in result.curve) for result in results}
    if len(steps) == 1:
        losses = np.array([[point.loss for point in result.curve] for result in results])
        axes.plot(next(iter(steps)), np.median(losses, axis=0), **style)
    else:
        axes.plot([], [], **style)


def _points(result: TrialResult) -> tuple[list[int], list[float]]:
    return [point.step for point in result.curve], [point.loss for point in result.curve]
