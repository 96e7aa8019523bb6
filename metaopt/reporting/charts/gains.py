"""What single predictions are worth, and the controls beside them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.results import Comparison, Prediction
from ...evaluation.statistics import bounded, geometric_mean
from ...figures import canvas, limits_of, note, plain_log, row_labels, spread, styled
from ...figures.colours import INK
from ...figures.interactive import Interactive, dots, interactive, lines, log_axis, row_axis
from .base import case_of
from .contenders import CONTROL, looks

_ROW = 0.38  # [inches]
_PIXELS = 36
_WIDEST = 20.0  # a control can make the loss thousands of times as high, which need not be seen to scale


class Row(NamedTuple):
    """A predictor, and what each of its predictions did: loss after / before."""

    label: str
    colour: str
    predictions: list[Prediction]
    ratios: list[float]
    mean: float


@dataclass(frozen=True)
class Gains:
    """Loss right after one unguarded prediction relative to the loss before, for predictors and controls."""

    comparison: Comparison
    name: ClassVar[str] = "nowcasts"
    title: ClassVar[str] = "One prediction, without a guard"

    @property
    def caption(self) -> str:
        """How to read it."""
        return (
            "Each dot is one prediction from a state of hold; left of 1 it lowers the loss. Bars and numbers are "
            "geometric means. Controls (grey) are the judged optimizer with its input spoilt: they must lose most of "
            "the gain, or what was spoilt is of no use to it."
        )

    @cached_property
    def rows(self) -> list[Row]:
        """Contenders that predict, then controls."""
        contenders = [(name, name, look.colour) for name, look in looks(self.comparison).items()]
        controls = [(name, f"control: {name}", CONTROL) for name in self.comparison.controls]
        rows = []
        for name, label, colour in [*contenders, *controls]:
            if made := self.comparison.predictions_of(name):
                ratios = [bounded(bounded(p.loss_after) / p.loss_before) for p in made]
                rows.append(Row(label, colour, made, ratios, geometric_mean(ratios).mean))
        return rows

    @styled()
    def drawn(self) -> Figure:
        """A row per predictor."""
        subtitle = f"{case_of(self.comparison)}. Dots: predictions from states of hold; bars and ×: geometric means"
        figure, axes = canvas(self.title, subtitle, 0.8 + _ROW * len(self.rows))
        (only,) = axes.flat
        for number, row in enumerate(self.rows):
            self._draw_row(only, number, row)
        only.axvline(1, color=INK, linewidth=1)
        only.set(xlabel="validation loss after / before (left of 1: better)", xlim=self._limits())
        plain_log(only, "x")
        row_labels(only, [row.label for row in self.rows])
        return figure

    def interactive(self) -> Interactive:
        """The same, with the loss before and after each prediction."""
        traces = [trace for number, row in enumerate(self.rows) for trace in self._traces(number, row)]
        ends = [len(self.rows) - 0.5, -0.5]
        traces.append(lines([1, 1], ends, "no change", INK, width=1, hoverinfo="skip"))
        axis = log_axis(self._limits() or (), "validation loss after / before (left of 1: better)", 0)
        rows = row_axis([row.label for row in self.rows])
        return interactive(traces, 110 + _PIXELS * len(self.rows), showlegend=False, xaxis=axis, yaxis=rows)

    def _limits(self) -> tuple[float, float] | None:
        return limits_of([1.0, *(min(ratio, _WIDEST) for row in self.rows for ratio in row.ratios)], 0.05)

    def _draw_row(self, axes: Axes, number: int, row: Row) -> None:
        heights = spread(number, len(row.ratios), 0.5)
        axes.plot(row.ratios, heights, "o", color=row.colour, markersize=4.5, alpha=0.45, markeredgewidth=0)
        axes.plot([row.mean] * 2, [number - 0.34, number + 0.34], color=row.colour, linewidth=2.4)
        note(axes, number, f"×{row.mean:.2f}" if row.mean < 10 else f"×{row.mean:.3g}", colour=INK)

    def _traces(self, number: int, row: Row) -> list[dict[str, Any]]:
        told = [[p.seed, p.step, p.loss_before, p.loss_after] for p in row.predictions]
        hover = (
            f"{row.label}<br>random seed %{{customdata[0]}}, step %{{customdata[1]}}<br>"
            "loss %{customdata[2]:.4f} → %{customdata[3]:.4f}<br>×%{x:.3f}<extra></extra>"
        )
        heights = spread(number, len(row.ratios), 0.5)
        mean = {"width": 3, "hovertemplate": f"<b>{row.label}</b><br>geometric mean ×{row.mean:.3g}<extra></extra>"}
        return [
            dots(row.ratios, heights, row.label, row.colour, size=7, opacity=0.5, customdata=told, hovertemplate=hover),
            lines([row.mean] * 2, [number - 0.34, number + 0.34], row.label, row.colour, **mean),
        ]
