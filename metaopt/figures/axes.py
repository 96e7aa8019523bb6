"""Matplotlib figures under one style, without global state: settings of the user or a notebook have no effect."""

import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from .colours import MUTED

WIDTH = 7.0
"""Width of each figure [inches]."""

STYLE = Path(__file__).with_name("style.mplstyle")
"""Style file of all figures."""

_CHARACTERS = 96  # per line of a subtitle
_TITLE, _LINE, _EDGE = 0.36, 0.175, 0.1  # heights in the heading [inches]
_LEGEND_GAP, _LEGEND_LINE = 0.1, 0.19  # [inches]
_LEFT = 0.012  # share of the width
_COLUMNS = 5  # of a legend


@contextmanager
def styled() -> Iterator[None]:
    """Draw or save under the style, then restore all settings. It also works as a decorator:

    @styled()
    def draw() -> Figure: ...
    """
    with matplotlib.style.context(STYLE, after_reset=True):
        yield


def canvas(title: str, subtitle: str, height: float, entries: int = 0, **subplots: Any) -> tuple[Figure, np.ndarray]:
    """Create an empty figure with a heading. Call it under `styled`.

    Args:
        height: height below the heading [inches].
        entries: number of entries of the legend in the heading [count], see `legend`.
        subplots: keyword arguments of `Figure.subplots`.
    Returns: the figure, and its axes in a two-dimensional array.
    """
    lines = textwrap.wrap(subtitle, _CHARACTERS)
    texts = _TITLE + _LINE * len(lines)
    head = texts + (_LEGEND_GAP + _LEGEND_LINE * -(-entries // _COLUMNS) if entries else 0.0)
    figure = Figure(figsize=(WIDTH, height + head), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(head, height), squeeze=False).flat
    above.text(_LEFT, 1 - _EDGE / head, title, va="top", fontsize=12, fontweight="bold")
    for number, line in enumerate(lines):
        above.text(_LEFT, 1 - (_TITLE + number * _LINE) / head, line, va="top", fontsize=9, color=MUTED)
    return figure, below.subplots(squeeze=False, **subplots)


def legend(figure: Figure, axes: Axes, **options: Any) -> None:
    """Put the legend of some axes into the heading, row by row, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), _COLUMNS)
    order = [place for first in range(columns) for place in range(first, len(labels), columns)]
    place = {"loc": "lower left", "bbox_to_anchor": (_LEFT, 0), "borderaxespad": 0, "borderpad": 0, "ncols": columns}
    figure.subfigs[0].legend(
        [handles[number] for number in order],
        [labels[number] for number in order],
        **{**place, "handlelength": 1.6, "columnspacing": 1.4, **options},
    )


@styled()
def line_chart(
    title: str,
    subtitle: str,
    xlabel: str,
    ylabel: str,
    x: Sequence[float],
    series: Sequence[Mapping[str, float]],
    reference: float | None = None,
) -> Figure:
    """Draw one line for each name.

    Args:
        x: positions of the points.
        series: values at each position, by name; a name without a value there is skipped.
        reference: y of a dotted horizontal line.
    """
    names = sorted({name for values in series for name in values})
    figure, axes = canvas(title, subtitle, 3.4, len(names))
    (only,) = axes.flat
    for name in names:
        points = [(place, values[name]) for place, values in zip(x, series, strict=True) if name in values]
        only.plot(*zip(*points, strict=True), marker=".", label=name)
    if names:
        legend(figure, only)
    if reference is not None:
        only.axhline(reference, linestyle=":", color=MUTED, zorder=1)
    only.set(xlabel=xlabel, ylabel=ylabel)
    return figure


@styled()
def rendered(figure: Figure) -> Mapping[str, bytes]:
    """Render a newly drawn figure, to the same bytes each time; the keys are the file endings `svg` and `png`."""
    files = {}
    for ending, metadata in (("svg", {"Date": None}), ("png", {})):
        file = io.BytesIO()
        figure.savefig(file, format=ending, metadata=metadata)
        files[ending] = file.getvalue()
    return files


def plain_log(axes: Axes, which: str) -> None:
    """Make an axis (`x` or `y`) logarithmic, with a few plain numbers on it for decades as for a few percent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.set(**{f"{which}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high > 3 * low else MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def limits_of(values: Iterable[float], margin: float = 0.08) -> tuple[float, float] | None:
    """Limits of a logarithmic axis around all positive finite values; None if no value is positive and finite."""
    logs = [float(np.log(value)) for value in values if np.isfinite(value) and value > 0]
    if not logs:
        return None
    room = max((max(logs) - min(logs)) * margin, 0.02)
    return float(np.exp(min(logs) - room)), float(np.exp(max(logs) + room))


def row_labels(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure, the first one on top."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def note(axes: Axes, row: int, text: str, colour: str = MUTED) -> None:
    """Write a few words at the right end of a row."""
    axes.annotate(text, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=colour)


def spread(row: float, count: int, width: float = 0.32) -> list[float]:
    """Heights around a row, so that equal values do not hide each other."""
    return [row + width * (place / (count - 1) - 0.5) if count > 1 else row for place in range(count)]
