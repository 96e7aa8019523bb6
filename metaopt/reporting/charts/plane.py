"""Chart of the snapshots of a hold run and the predictions, in the plane of two principal components."""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ...diagnostics import Diagnostics, Plane
from ...evaluation.results import HOLD, Comparison
from ...figures import canvas, legend, styled
from ...figures.colours import HEIGHTS, INK, MUTED
from ..formatting import label, percent
from .base import Chart, describe_run
from .contenders import CANDIDATE

_TITLE = "Training trajectory and predictions on the loss surface"
_LEVELS = 10
_OFFSET = 13  # distance of the step numbers from the path [points]
_LABELLED = 5  # approximate number of snapshots that are labelled with their step

Levels = Float[np.ndarray, " levels"]


def plane_chart(comparison: Comparison, diagnostics: Diagnostics, plane: Plane) -> Chart:
    """Chart of the path of a hold run and the predictions, over contours of the loss."""
    candidate = comparison.candidate
    shares = ", ".join(map(percent, plane.in_plane))
    alone = label(HOLD, comparison.config)
    caption = (
        "The plane of the first two principal components of the snapshots of one training run. It explains "
        f"{percent(plane.explained)} of their variance; both axes have the same scale. Contours: loss at each point of "
        f"the plane, on {diagnostics.examples} validation examples. Black line: training trajectory; dots: snapshots. "
        f"Arrows: predictions of {candidate}, {plane.horizon} steps ahead; a dotted line connects each to an open "
        f"circle, the weights of {alone} {plane.horizon} steps later. The plane contains {shares} of the squared "
        "lengths of the predicted changes; the contours do not show the other components."
    )
    return Chart("plane", _TITLE, caption, partial(_draw, comparison, diagnostics, plane))


@styled()
def _draw(comparison: Comparison, diagnostics: Diagnostics, plane: Plane) -> Figure:
    subtitle = (
        f"{describe_run(comparison, diagnostics)}. Contours: loss; the plane explains "
        f"{percent(plane.explained)} of the variance; arrows: predictions {plane.horizon} steps ahead"
    )
    figure, grid = canvas(_TITLE, subtitle, 4.4, 3)
    (axes,) = grid.flat
    _draw_contours(axes, plane)
    axes.plot(*plane.path.T, "-o", color=INK, markersize=3.5, linewidth=1.4, label=label(HOLD, comparison.config))
    axes.plot([], [], "->", color=CANDIDATE, label=f"{comparison.candidate}'s predictions")
    _draw_predictions(axes, plane)
    _label_steps(axes, plane)
    x, y = (f"principal component {number} [raw units]" for number in (1, 2))
    axes.set(xlabel=x, ylabel=y, xlim=plane.x[[0, -1]], ylim=plane.y[[0, -1]], aspect="equal")
    axes.grid(visible=False)
    legend(figure, axes)
    return figure


def _draw_contours(axes: Axes, plane: Plane) -> None:
    logs = np.log(plane.losses[np.isfinite(plane.losses)])
    levels = np.exp(np.linspace(logs.min(), max(logs.max(), logs.min() + 1e-6), _LEVELS))
    colours = LinearSegmentedColormap.from_list("heights", HEIGHTS)
    losses = np.log(plane.losses)
    axes.contourf(plane.x, plane.y, losses, np.log(levels), cmap=colours, extend="both")
    lines = axes.contour(plane.x, plane.y, losses, np.log(levels), colors=MUTED, linewidths=0.5, linestyles="-")
    if places := _crossings(plane, levels):
        style: dict[str, Any] = {"fontsize": 7.5, "colors": MUTED, "manual": places}
        axes.clabel(lines, fmt=dict(zip(lines.levels, level_labels(levels), strict=True)), **style)


def level_labels(levels: Levels) -> list[str]:
    """The levels with as many digits, three or more, as are needed to tell them apart."""
    for digits in range(3, 17):
        labels = [f"{level:.{digits}g}" for level in levels]
        if len(set(labels)) == len(labels):
            break
    return labels


def _crossings(plane: Plane, levels: Levels) -> list[tuple[float, float]]:
    """Positions of the contour labels: the points at which the levels cross a grid row near the upper edge."""
    row = len(plane.y) - 2
    places = []
    for left, right, x, after in zip(plane.losses[row], plane.losses[row, 1:], plane.x, plane.x[1:], strict=False):
        for level in levels:
            if (left - level) * (right - level) < 0:
                places.append((float(x + (after - x) * (level - left) / (right - left)), float(plane.y[row])))
    return places


def _draw_predictions(axes: Axes, plane: Plane) -> None:
    later = np.stack([plane.position(start + plane.horizon) for start in plane.starts])
    for start, end, true in zip(plane.starts, plane.predicted, later, strict=True):
        axes.plot(*np.stack([end, true]).T, ":", color=CANDIDATE, linewidth=1)
        arrow = {"arrowstyle": "-|>", "color": CANDIDATE, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tuple(end), tuple(plane.position(start)), arrowprops=arrow, zorder=5)
    ring: dict[str, Any] = {"color": CANDIDATE, "markerfacecolor": "white", "markersize": 6, "zorder": 4}
    axes.plot(*later.T, "o", label=f"training run {plane.horizon} steps later", **ring)


def _label_steps(axes: Axes, plane: Plane) -> None:
    """Write step numbers beside the path, on the side that faces away from the mean of the snapshots."""
    along = np.gradient(plane.path, axis=0)
    aside = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True).clip(1e-12)
    aside *= np.where((aside * plane.path).sum(1, keepdims=True) < 0, -1, 1)
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": INK}
    for number in range(0, len(plane.steps), max(len(plane.steps) // _LABELLED, 1)):
        offset = tuple(_OFFSET * aside[number])
        axes.annotate(str(plane.steps[number]), tuple(plane.path[number]), offset, textcoords="offset points", **style)
