"""The trajectory and its predictions in the plane in which it moves most, over contours of the true loss."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ...diagnostics import Diagnostics, Plane
from ...evaluation.results import Comparison
from ...figures import canvas, legend, styled
from ...figures.colours import INK, MUTED, heights
from ...figures.interactive import Interactive, dots, interactive, lines
from ..text import percent
from .base import subject_of
from .contenders import JUDGED

_LEVELS = 10
_BESIDE = 13  # the path [points]
_LABELLED = 5  # steps named along the path, about


@dataclass(frozen=True)
class PlaneChart:
    """Where predictions lead, and how low the loss is there."""

    comparison: Comparison
    portrait: Diagnostics
    plane: Plane
    name: ClassVar[str] = "plane"
    title: ClassVar[str] = "The training and predictions from it, over the loss"

    @property
    def caption(self) -> str:
        """How to read it."""
        plane, judged = self.plane, self.comparison.judged
        inside = ", ".join(map(percent, plane.inside))
        return (
            "The plane of the first two principal components of one training's snapshots, which holds "
            f"{percent(plane.explained)} of their variance; both axes have one scale. Contours: loss of the weights at "
            f"each place of the plane, on {self.portrait.examples} validation examples. Black: the training, a dot per "
            f"snapshot. Arrows: {judged}, {plane.reach} steps ahead; an open ring is where the twin was after these "
            f"{plane.reach} steps, joined by a dotted line. Of the squared lengths of the predicted changes, {inside} "
            "lie in the plane: what is outside of it, contours do not show."
        )

    @styled()
    def drawn(self) -> Figure:
        """Contours, path and arrows."""
        plane, judged = self.plane, self.comparison.judged
        subtitle = (
            f"{subject_of(self.comparison, self.portrait)}. Contours: loss; the plane holds "
            f"{percent(plane.explained)} of the variance; arrows look {plane.reach} steps ahead"
        )
        figure, grid = canvas(self.title, subtitle, 4.4, 3)
        (axes,) = grid.flat
        self._draw_contours(axes)
        axes.plot(*plane.path.T, "-o", color=INK, markersize=3.5, linewidth=1.4, label="the training (hold)")
        axes.plot([], [], "->", color=JUDGED, label=f"{judged}'s predictions")
        self._draw_predictions(axes)
        self._name_steps(axes)
        x, y = (f"principal component {number} [raw units]" for number in (1, 2))
        axes.set(xlabel=x, ylabel=y, xlim=plane.x[[0, -1]], ylim=plane.y[[0, -1]], aspect="equal")
        axes.grid(visible=False)
        legend(figure, axes)
        return figure

    def interactive(self) -> Interactive:
        """The same; pointing anywhere shows the loss there."""
        plane = self.plane
        axes = (
            {"title": {"text": f"principal component {number} [raw units]"}, "showgrid": False} for number in (1, 2)
        )
        xaxis, yaxis = (
            {**axis, "range": [float(ends[0]), float(ends[-1])], "constrain": "domain"}
            for axis, ends in zip(axes, (plane.x, plane.y), strict=True)
        )
        yaxis["scaleanchor"] = "x"
        return interactive([self._contour_trace(), *self._path_traces()], 560, xaxis=xaxis, yaxis=yaxis)

    def _levels(self) -> np.ndarray:
        """Evenly spread in log loss."""
        logs = np.log(self.plane.losses[np.isfinite(self.plane.losses)])
        return np.exp(np.linspace(logs.min(), max(logs.max(), logs.min() + 1e-6), _LEVELS))

    def _draw_contours(self, axes: Axes) -> None:
        plane, levels = self.plane, self._levels()
        colours = LinearSegmentedColormap.from_list("heights", heights())
        losses = np.log(plane.losses)
        axes.contourf(plane.x, plane.y, losses, np.log(levels), cmap=colours, extend="both")
        lines = axes.contour(plane.x, plane.y, losses, np.log(levels), colors=MUTED, linewidths=0.5, linestyles="-")
        if places := self._crossings(levels):
            style: dict[str, Any] = {"fontsize": 7.5, "colors": MUTED, "manual": places}
            axes.clabel(lines, fmt=FuncFormatter(lambda value, _: f"{np.exp(value):.3g}"), **style)

    def _crossings(self, levels: np.ndarray) -> list[tuple[float, float]]:
        """Where the levels cross a row of the grid near its upper edge, above the path: there they are named."""
        plane, row = self.plane, len(self.plane.y) - 2
        places = []
        for left, right, x, after in zip(plane.losses[row], plane.losses[row, 1:], plane.x, plane.x[1:], strict=False):
            for level in levels:
                if (left - level) * (right - level) < 0:
                    places.append((float(x + (after - x) * (level - left) / (right - left)), float(plane.y[row])))
        return places

    def _draw_predictions(self, axes: Axes) -> None:
        plane = self.plane
        for start, end in zip(plane.starts, plane.ends, strict=True):
            begin, later = plane.place(start), plane.place(start + plane.reach)
            axes.plot(*np.stack([end, later]).T, ":", color=JUDGED, linewidth=1)
            arrow = {"arrowstyle": "-|>", "color": JUDGED, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", tuple(end), tuple(begin), arrowprops=arrow, zorder=5)
        there = np.stack([plane.place(start + plane.reach) for start in plane.starts])
        axes.plot(*there.T, "o", color=JUDGED, markerfacecolor="white", markersize=6, zorder=4, label=self._ring())

    def _ring(self) -> str:
        return f"the training {self.plane.reach} steps later"

    def _name_steps(self, axes: Axes) -> None:
        """Beside the path, on the side away from its middle."""
        along = np.gradient(self.plane.path, axis=0)
        aside = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True).clip(1e-12)
        aside *= np.where((aside * self.plane.path).sum(1, keepdims=True) < 0, -1, 1)
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": INK}
        for number in range(0, len(self.plane.steps), max(len(self.plane.steps) // _LABELLED, 1)):
            offset = tuple(_BESIDE * aside[number])
            place = tuple(self.plane.path[number])
            axes.annotate(str(self.plane.steps[number]), place, offset, textcoords="offset points", **style)

    def _contour_trace(self) -> dict[str, Any]:
        plane, levels = self.plane, np.log(self._levels())
        size = float(levels[1] - levels[0])
        bar = {"title": {"text": "loss"}, "tickvals": levels, "ticktext": [f"{x:.2g}" for x in np.exp(levels)]}
        return {
            "type": "contour",
            "x": plane.x,
            "y": plane.y,
            "z": np.log(plane.losses),
            "customdata": plane.losses,
            "colorscale": heights(),
            "contours": {"start": float(levels[0]), "end": float(levels[-1]), "size": size},
            "line": {"color": MUTED, "width": 0.5},
            "colorbar": {**bar, "thickness": 12, "outlinewidth": 0, "len": 0.9},
            "hovertemplate": "loss here %{customdata:.4f}<extra></extra>",
            "name": "loss",
        }

    def _path_traces(self) -> list[dict[str, Any]]:
        plane, judged = self.plane, self.comparison.judged
        text = [f"step {s}<br>loss {loss:.4f}" for s, loss in zip(plane.steps, plane.path_losses, strict=True)]
        hover: dict[str, Any] = {"text": text, "hovertemplate": "the training<br>%{text}<extra></extra>"}
        x, y = plane.path.T
        path = lines(x, y, "the training (hold)", INK, width=2, **hover)
        traces = [{**path, "mode": "lines+markers", "marker": {"size": 5, "color": INK}}]
        for number, start in enumerate(plane.starts):
            begin, end, later = plane.place(start), plane.ends[number], plane.place(start + plane.reach)
            shared = {"legendgroup": "predictions", "showlegend": False, "hoverinfo": "skip"}
            traces.append(lines([end[0], later[0]], [end[1], later[1]], judged, JUDGED, dash="dot", width=1, **shared))
            traces.append(self._arrow_trace(number, begin, end))
        there = np.stack([plane.place(start + plane.reach) for start in plane.starts]).T
        ring = {"symbol": "circle-open", "size": 10, "hoverinfo": "skip"}
        return [*traces, dots(there[0], there[1], self._ring(), JUDGED, **ring)]

    def _arrow_trace(self, number: int, begin: np.ndarray, end: np.ndarray) -> dict[str, Any]:
        plane, judged = self.plane, self.comparison.judged
        start = plane.starts[number]
        before = plane.path_losses[plane.steps.index(start)]
        later = plane.path_losses[plane.steps.index(start + plane.reach)]
        text = (
            f"{judged}, from step {start} to {start + plane.reach}<br>loss {before:.4f} → "
            f"{plane.end_losses[number]:.4f}<br>the training itself: {later:.4f}<br>"
            f"{percent(plane.inside[number])} of the predicted change lies in the plane<extra></extra>"
        )
        arrow = lines([begin[0], end[0]], [begin[1], end[1]], judged, JUDGED, width=3, hovertemplate=text)
        marker = {"color": JUDGED, "size": [0, 18], "symbol": "arrow", "angleref": "previous"}
        legend = {"legendgroup": "predictions", "showlegend": number == 0}
        return {**arrow, "mode": "lines+markers", "marker": marker, **legend}
