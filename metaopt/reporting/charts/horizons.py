"""The loss of predictions as a function of t_end."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...diagnostics import Diagnostics, Horizons
from ...evaluation.results import Comparison
from ...figures import canvas, legend, styled
from ...figures.colours import INK, MUTED, ORANGE
from ...figures.interactive import Interactive, interactive, lines
from .base import subject_of
from .contenders import JUDGED

_WORST = 0.7  # of the log loss: what is worse is beyond the upper edge, unless all is


@dataclass(frozen=True)
class HorizonsChart:
    """How far ahead a prediction pays."""

    comparison: Comparison
    portrait: Diagnostics
    horizons: Horizons
    name: ClassVar[str] = "horizons"
    title: ClassVar[str] = "Loss as a function of the horizon"

    @property
    def caption(self) -> str:
        """How to read it."""
        proposed = ", ".join(map(str, self.horizons.proposed))
        return (
            "Change of the log loss from W_t to a prediction of the weights at t_end, against t_end − t_start; below "
            "zero is better, −0.1 is about a tenth less. Dashed: the twin itself, that many steps later: a prediction "
            "below the dashed line is ahead of it. Each panel is another step of W_t. Dotted: the horizons that "
            f"nowcasts propose here ({proposed} steps)."
        )

    @styled()
    def drawn(self) -> Figure:
        """A panel per start."""
        subtitle = f"{subject_of(self.comparison, self.portrait)}. From W_t at an early, a middle and a late step"
        starts = self.horizons.starts
        figure, axes = canvas(self.title, subtitle, 3.3, 3, ncols=len(starts), sharey=True, sharex=True)
        for number, panel in enumerate(axes[0]):
            self._draw_panel(panel, number)
            panel.set_title(f"from step {starts[number]}", fontsize=9.5, color=MUTED)
        axes[0, 0].set(ylabel="change of log loss", ylim=self._limits())
        axes[0, len(starts) // 2].set_xlabel("horizon t_end − t_start [steps]")
        legend(figure, axes[0, 0])
        return figure

    def interactive(self) -> Interactive:
        """The same, with losses."""
        starts = self.horizons.starts
        traces = [trace for number in range(len(starts)) for trace in self._traces(number)]
        layout: dict[str, Any] = {}
        for number, start in enumerate(starts):
            suffix = str(number + 1) if number else ""
            layout[f"xaxis{suffix}"] = {"title": {"text": f"horizon [steps], from step {start}"}}
            layout[f"yaxis{suffix}"] = {"range": self._limits(), "matches": "y", "showticklabels": not number}
        layout["yaxis"] = {"range": self._limits(), "title": {"text": "change of log loss"}}
        return interactive(traces, 420, [1.0] * len(starts), **layout)

    def _series(self) -> list[tuple[str, Float[np.ndarray, "starts horizons"], str, bool]]:
        """Name, values, colour, whether dashed."""
        return [
            ("the twin itself", self.horizons.twin, INK, True),
            ("line", self.horizons.line, ORANGE, False),
            (self.comparison.judged, self.horizons.judged, JUDGED, False),
        ]

    def _limits(self) -> tuple[float, float]:
        shown = np.concatenate([values.ravel() for _, values, _, _ in self._series()])
        shown = shown[np.isfinite(shown)]
        low, high = min(float(shown.min(initial=0.0)), -0.02), max(float(shown.max(initial=0.0)), 0.02)
        high = min(high, max(_WORST, -low))
        room = 0.06 * (high - low)
        return low - room, high + room

    def _draw_panel(self, axes: Axes, number: int) -> None:
        for proposed in self.horizons.proposed:
            axes.axvline(proposed, color="#BBBBBB", linewidth=1, linestyle=":")
        axes.axhline(0, color="#999999", linewidth=1)
        for name, values, colour, dashed in self._series():
            style: dict[str, Any] = {"linestyle": "--" if dashed else "-", "marker": None if dashed else "o"}
            axes.plot(self.horizons.horizons, values[number], color=colour, label=name, markersize=4.5, **style)

    def _traces(self, number: int) -> list[dict[str, Any]]:
        suffix = str(number + 1) if number else ""
        place = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "showlegend": not number}
        before, ahead, traces = self.horizons.loss[number], list(self.horizons.horizons), []
        for name, values, colour, dashed in self._series():
            hover = (
                f"<b>{name}</b>, %{{x}} steps ahead<br>log loss %{{y:+.3f}}<br>"
                f"loss {before:.4f} → %{{customdata:.4f}}<extra></extra>"
            )
            style = {"dash": "dash" if dashed else "solid", "legendgroup": name, "hovertemplate": hover, **place}
            line = lines(ahead, values[number], name, colour, customdata=before * np.exp(values[number]), **style)
            traces.append({**line, "mode": "lines" if dashed else "lines+markers"})
        edges = {"width": 1, "hoverinfo": "skip", **place, "showlegend": False}
        traces.append(lines([0, ahead[-1]], [0, 0], "no change", "#999999", **edges))
        for proposed in self.horizons.proposed:
            traces.append(lines([proposed] * 2, list(self._limits()), "proposed", "#BBBBBB", dash="dot", **edges))
        return traces
