"""Loss after one unguarded prediction, relative to the loss before it."""

from functools import partial
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.results import HOLD, Comparison
from ...evaluation.statistics import bounded, geometric_mean
from ...figures import canvas, limits_of, note, plain_log, row_labels, spread, styled
from ...figures.colours import INK
from ..formatting import label
from .base import Chart, describe_case
from .contenders import CONTROL, contender_styles

_TITLE = "One prediction, without a guard"
_ROW = 0.38  # [inches]
_WIDEST = 20.0  # ratio; a control can raise the loss by a factor of thousands


class _Row(NamedTuple):
    label: str
    colour: str
    ratios: list[float]
    mean: float


def nowcasts_chart(comparison: Comparison) -> Chart:
    """Loss ratios of single predictions, for contenders and controls."""
    caption = (
        f"Each dot is one prediction from a state of {label(HOLD, comparison.config)}; below 1 it lowers the loss. "
        "Bars and numbers: geometric means. Controls (grey): the evaluated optimizer with corrupted input. A control "
        "must lose most of the gain; otherwise the optimizer does not use the corrupted input."
    )
    return Chart("nowcasts", _TITLE, caption, partial(_draw, comparison))


@styled()
def _draw(comparison: Comparison) -> Figure:
    rows, alone = _rows(comparison), label(HOLD, comparison.config)
    subtitle = f"{describe_case(comparison)}. Dots: predictions from states of {alone}; bars and ×: geometric means"
    figure, axes = canvas(_TITLE, subtitle, 0.8 + _ROW * len(rows))
    (only,) = axes.flat
    for number, row in enumerate(rows):
        _draw_row(only, number, row)
    only.axvline(1, color=INK, linewidth=1)
    limits = limits_of([1.0, *(min(ratio, _WIDEST) for row in rows for ratio in row.ratios)], 0.05)
    only.set(xlabel="validation loss after / before (left of 1: better)", xlim=limits)
    plain_log(only, "x")
    row_labels(only, [row.label for row in rows])
    return figure


def _rows(comparison: Comparison) -> list[_Row]:
    """Contenders that predict, then controls."""
    contenders = [(name, name, style.colour) for name, style in contender_styles(comparison).items()]
    controls = [(name, f"control: {name}", CONTROL) for name in comparison.controls]
    rows = []
    for name, title, colour in [*contenders, *controls]:
        predictions = comparison.predictions_of(name)
        if predictions:
            ratios = [bounded(bounded(p.loss_after) / p.loss_before) for p in predictions]
            rows.append(_Row(title, colour, ratios, geometric_mean(ratios).mean))
    return rows


def _draw_row(axes: Axes, number: int, row: _Row) -> None:
    heights = spread(number, len(row.ratios), 0.5)
    axes.plot(row.ratios, heights, "o", color=row.colour, markersize=4.5, alpha=0.45, markeredgewidth=0)
    axes.plot([row.mean] * 2, [number - 0.34, number + 0.34], color=row.colour, linewidth=2.4)
    note(axes, number, f"×{row.mean:.2f}" if row.mean < 10 else f"×{row.mean:.3g}", colour=INK)
