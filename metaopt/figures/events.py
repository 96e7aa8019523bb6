"""A raster of events, and a curve of a value at each of them, for several rows over the same steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import canvas, plain_log, row_labels, styled
from .colours import in_order

_ROW = 0.3  # height of a row of the raster [inches]
_CURVES = 2.4  # height of the curves [inches]
_TICKS = 150  # events of a row that readers can distinguish; more become a bar
_TALL = 0.7  # height of an event, of a row


@styled()
def event_chart(
    title: str,
    subtitle: str,
    xlabel: str,
    ylabel: str,
    events: Mapping[str, Sequence[float]],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Figure:
    """Draw a row of events for each name, and below it a curve of each name on a logarithmic axis.

    Args:
        events: positions of the events by name, the first row on top. More than can be distinguished become a bar.
        curves: positions and values of each curve by the same names; values that are not positive are left out.
    """
    raster = 0.35 + _ROW * len(events)
    figure, axes = canvas(title, subtitle, raster + _CURVES, nrows=2, sharex=True, height_ratios=(raster, _CURVES))
    above, below = axes[:, 0]
    for row, (colour, name) in enumerate(zip(in_order(len(events)), events, strict=True)):
        _draw_events(above, row, events[name], colour)
        places, values = (np.asarray(part, dtype=float) for part in curves[name])
        shown = np.isfinite(values) & (values > 0)
        marker = "." if shown.sum() < _TICKS else None
        below.plot(places[shown], values[shown], color=colour, linewidth=1.2, marker=marker, label=name)
    row_labels(above, list(events))
    above.grid(visible=False)
    below.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, None))
    if any(len(line.get_xdata()) for line in below.lines):
        plain_log(below, "y")
    return figure


def _draw_events(axes: Axes, row: int, places: Sequence[float], colour: str) -> None:
    if len(places) > _TICKS:
        axes.barh(row, places[-1] - places[0], _TALL, left=places[0], color=colour)
    else:
        axes.vlines(places, row - _TALL / 2, row + _TALL / 2, colors=colour, linewidth=1.4)
