"""Predicted against true change, layer by layer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...diagnostics import Diagnostics, Layers
from ...evaluation.results import Comparison
from ...figures import canvas, legend, limits_of, plain_log, row_labels, spread, styled
from ...figures.colours import INK, MUTED, in_order
from ...figures.interactive import Interactive, dots, interactive, lines, log_axis, row_axis
from .base import subject_of

_ROW = 0.34  # [inches]
_PIXELS = 36

Values = Float[np.ndarray, "starts names"]


@dataclass(frozen=True)
class LayersChart:
    """Whether predictions point where the twin went, and are as long as its way."""

    comparison: Comparison
    portrait: Diagnostics
    layers: Layers
    name: ClassVar[str] = "layers"
    title: ClassVar[str] = "Predicted against true change, layer by layer"

    @property
    def caption(self) -> str:
        """How to read it."""
        return (
            f"For each layer, the change that {self.comparison.judged} predicts for the next {self.layers.reach} steps "
            "beside the change that the twin then made. Left: cosine of the angle between both, 1 is the same "
            "direction. Right: length of the predicted change / of the true one, 1 is as far. Dots: steps of the "
            "prediction, early (light) to late (dark). Grey ticks: the line, the median over these steps. An optimizer "
            "that is trained for a low loss need not follow its twin."
        )

    @styled()
    def drawn(self) -> Figure:
        """Cosines on the left, lengths on the right."""
        subtitle = f"{subject_of(self.comparison, self.portrait)}. {self.comparison.judged}, {self._ahead()}"
        height = 0.8 + _ROW * len(self.layers.names)
        figure, axes = canvas(self.title, subtitle, height, len(self.layers.starts) + 1, ncols=2, sharey=True)
        left, right = axes[0]
        self._draw(left, self.layers.cosine, self.layers.line_cosine)
        self._draw(right, self.layers.ratio, self.layers.line_ratio)
        left.set(xlabel="cosine", xlim=self._cosines())
        right.axvline(1, color=INK, linewidth=1)
        right.set(xlabel="length: predicted / true", xlim=self._lengths())
        plain_log(right, "x")
        row_labels(left, self.layers.names)
        right.tick_params(axis="y", length=0)
        legend(figure, left, handletextpad=0.3)
        return figure

    def interactive(self) -> Interactive:
        """The same, with the numbers of each step."""
        rows = row_axis(self.layers.names)
        ends = [len(self.layers.names) - 0.5, -0.5]
        one = {"width": 1, "showlegend": False, "hoverinfo": "skip", "xaxis": "x2", "yaxis": "y2"}
        return interactive(
            [
                *self._traces("cosine", self.layers.cosine, self.layers.line_cosine, ""),
                *self._traces("length", self.layers.ratio, self.layers.line_ratio, "2"),
                lines([1, 1], ends, "as far", INK, **one),
            ],
            140 + _PIXELS * len(self.layers.names),
            (1, 1),
            xaxis={"title": {"text": "cosine"}, "range": self._cosines()},
            yaxis=rows,
            xaxis2=log_axis(self._lengths() or (), "length: predicted / true", 0),
            yaxis2={**rows, "showticklabels": False},
        )

    def _ahead(self) -> str:
        return f"{self.layers.reach} steps ahead"

    def _cosines(self) -> tuple[float, float]:
        shown = np.concatenate([self.layers.cosine.ravel(), self.layers.line_cosine.ravel(), [0.0]])
        return float(np.nanmin(shown)) - 0.04, 1.04

    def _lengths(self) -> tuple[float, float] | None:
        return limits_of([1.0, *self.layers.ratio.flat, *self.layers.line_ratio.flat])

    def _draw(self, axes: Axes, ours: Values, line: Values) -> None:
        rows = np.arange(len(self.layers.names))
        tick: dict[str, Any] = {"color": MUTED, "markersize": 15, "markeredgewidth": 1.6, "linestyle": "none"}
        axes.plot(_medians(line), rows, "|", label="line", **tick)
        for start, colour, number, height in zip(self.layers.starts, *self._states(), strict=True):
            axes.plot(ours[number], rows + height, "o", color=colour, label=f"step {start}")

    def _states(self) -> tuple[list[str], range, list[float]]:
        """A colour, a number and a height above its row for each start."""
        count = len(self.layers.starts)
        return in_order(count), range(count), spread(0, count, 0.36)

    def _traces(self, what: str, ours: Values, line: Values, axis: str) -> list[dict[str, Any]]:
        names, rows = self.layers.names, np.arange(len(self.layers.names))
        place: dict[str, Any] = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": not axis, "text": names}
        hover = f"%{{text}}<br>line, median {what} %{{x:.3f}}<extra></extra>"
        tick = {"symbol": "line-ns-open", "size": 16, "hovertemplate": hover, "legendgroup": "line"}
        traces = [dots(_medians(line), rows, "line", MUTED, **tick, **place)]
        for start, colour, number, height in zip(self.layers.starts, *self._states(), strict=True):
            hover = f"%{{text}}<br>from step {start}: {what} %{{x:.3f}}<extra></extra>"
            group = {"size": 9, "hovertemplate": hover, "legendgroup": str(start)}
            traces.append(dots(ours[number], rows + height, f"step {start}", colour, **group, **place))
        return traces


def _medians(values: Values) -> Float[np.ndarray, " names"]:
    """Over the starts, without those that are not a number."""
    return np.ma.median(np.ma.masked_invalid(values), axis=0).filled(np.nan)
