"""Steps to target: each random seed of each contender, and how sure the speed-up is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.results import HOLD, Comparison
from ...evaluation.summary import ContenderSummary, Summary
from ...figures import canvas, limits_of, note, plain_log, row_labels, spread, styled
from ...figures.colours import INK, MUTED
from ...figures.interactive import Interactive, dots, interactive, lines, log_axis, row_axis
from ..text import interval, steps
from .base import case_of
from .contenders import looks

_ROW = 0.36  # [inches]
_PIXELS = 34


@dataclass(frozen=True)
class Arrivals:
    """When each contender reached the best loss of its hold twin."""

    comparison: Comparison
    name: ClassVar[str] = "steps_to_target"
    title: ClassVar[str] = "Steps to the best loss of hold"

    @property
    def caption(self) -> str:
        """How to read it."""
        return (
            "Left: dots are random seeds (▸: never within the budget, counted as one measurement later), bars and "
            "numbers geometric means. Right: speed-up, hold's steps / the contender's, with its 95 % interval over "
            "random seeds; right of 1 is faster."
        )

    @cached_property
    def standings(self) -> list[ContenderSummary]:
        """One per contender."""
        return Summary(self.comparison).standings

    @property
    def budget(self) -> int:
        """Of every contender [steps]."""
        return self.comparison.curves[0].steps[-1]

    @styled()
    def drawn(self) -> Figure:
        """Steps on the left, speed-ups on the right."""
        subtitle = f"{case_of(self.comparison)}. Dots: random seeds (▸: never); bars and numbers: geometric means"
        shape: dict[str, Any] = {"ncols": 2, "width_ratios": (1.5, 1), "sharey": True}
        figure, axes = canvas(self.title, subtitle, 0.8 + _ROW * len(self.standings), **shape)
        left, right = axes[0]
        for row, standing in enumerate(self.standings):
            self._draw_row(left, right, row, standing)
        left.axvline(self.budget, color=MUTED, linestyle=":", linewidth=1)
        left.set(xlabel="optimizer steps", xlim=(0, self.budget * 1.07))
        right.axvline(1, color=INK, linewidth=1)
        right.set(xlabel="speed-up (95 %)", xlim=self._limits())
        plain_log(right, "x")
        row_labels(left, [standing.contender for standing in self.standings])
        right.tick_params(axis="y", length=0)
        return figure

    def interactive(self) -> Interactive:
        """The same, with the numbers of each random seed and contender."""
        names = [standing.contender for standing in self.standings]
        traces = [trace for row, standing in enumerate(self.standings) for trace in self._traces(row, standing)]
        budget = {"width": 1, "dash": "dot", "showlegend": False, "hovertemplate": f"budget: {self.budget} steps"}
        ends = [len(names) - 0.5, -0.5]
        traces += [
            lines([self.budget] * 2, ends, "budget", MUTED, **budget),
            lines([1, 1], ends, "hold", INK, width=1, showlegend=False, hoverinfo="skip", xaxis="x2", yaxis="y2"),
        ]
        return interactive(
            traces,
            110 + _PIXELS * len(names),
            (1.5, 1),
            showlegend=False,
            xaxis={"title": {"text": "optimizer steps"}, "range": [0, self.budget * 1.07]},
            yaxis=row_axis(names),
            xaxis2=log_axis(self._limits() or (), "speed-up (95 %)", 0),
            yaxis2={**row_axis(names), "showticklabels": False},
        )

    def _limits(self) -> tuple[float, float] | None:
        """Room for all means and for intervals that say something: those of two random seeds can span decades."""
        speed_ups = [standing.full.speed_up for standing in self.standings]
        means = [each.mean for each in speed_ups]
        bounds = [bound for each in speed_ups for bound in each[1:] if bound is not None]
        widest = (min(means) / 2, max(means) * 2)
        return limits_of([*means, 1.0, *(min(max(bound, widest[0]), widest[1]) for bound in bounds)])

    def _draw_row(self, left: Axes, right: Axes, row: int, standing: ContenderSummary) -> None:
        colour, full = looks(self.comparison)[standing.contender].colour, standing.full
        arrived = [steps for steps in full.steps if steps is not None]
        left.plot(arrived, spread(row, len(arrived)), "o", color=colour, alpha=0.75, markeredgewidth=0)
        never = spread(row, full.never)
        left.plot([self.budget] * full.never, never, ">", color=colour, alpha=0.75, markeredgewidth=0)
        left.plot([full.counted_steps] * 2, [row - 0.32, row + 0.32], color=colour, linewidth=2.4)
        speed_up = full.speed_up
        if standing.contender != HOLD:
            if speed_up.low is not None and speed_up.high is not None:
                right.plot([speed_up.low, speed_up.high], [row, row], color=colour, linewidth=1.6)
            right.plot([speed_up.mean], [row], "D", color=colour, markersize=5.5)
        note(right, row, f"{steps(full)} steps, ×{speed_up.mean:.2f}", colour=INK)

    def _traces(self, row: int, standing: ContenderSummary) -> list[dict[str, Any]]:
        name, full = standing.contender, standing.full
        colour = looks(self.comparison)[name].colour
        seeds = [curve.seed for curve in self.comparison.curves_of(name)]
        places = [self.budget if steps is None else steps for steps in full.steps]
        text = [
            f"{name}, random seed {seed}: " + ("never within the budget" if steps is None else f"{steps} steps")
            for seed, steps in zip(seeds, full.steps, strict=True)
        ]
        symbols = ["triangle-right" if steps is None else "circle" for steps in full.steps]
        hover: dict[str, Any] = {"text": text, "hovertemplate": "%{text}<extra></extra>"}
        mean = f"<b>{name}</b>: {steps(full)} steps<br>speed-up {interval(full.speed_up)}<extra></extra>"
        second: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2", "hovertemplate": mean}
        bar = [row - 0.32, row + 0.32]
        traces = [
            dots(places, spread(row, len(places)), name, colour, size=10, symbol=symbols, opacity=0.8, **hover),
            lines([full.counted_steps] * 2, bar, name, colour, width=3, hovertemplate=mean),
        ]
        if name != HOLD:
            low, value, high = full.speed_up.low, full.speed_up.mean, full.speed_up.high
            bounds = [value if bound is None else bound for bound in (low, high)]
            traces += [lines(bounds, [row, row], name, colour, **second)]
            traces += [dots([value], [row], name, colour, size=10, symbol="diamond", **second)]
        return traces
