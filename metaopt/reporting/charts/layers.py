"""Predicted change against true change, layer by layer."""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...diagnostics import Diagnostics, Layers
from ...evaluation.results import HOLD, Comparison
from ...figures import canvas, legend, limits_of, plain_log, row_labels, spread, styled
from ...figures.colours import INK, MUTED, in_order
from ..formatting import label
from .base import Chart, describe_run

_TITLE = "Predicted against true change, layer by layer"
_ROW = 0.34  # [inches]

Values = Float[np.ndarray, "starts names"]


def layers_chart(comparison: Comparison, diagnostics: Diagnostics) -> Chart:
    """Direction and length of the predicted change of each layer, relative to the true change."""
    caption = (
        f"For each layer, the change that {comparison.candidate} predicts for the next {diagnostics.layers.horizon} "
        f"steps, and the change that {label(HOLD, comparison.config)} then made. Left: cosine between both; 1 is the "
        "same direction. Right: length of the predicted change / length of the true change. Dots: steps of the "
        "prediction, early (light) to late (dark). Grey ticks: the line, median over these steps. An optimizer that is "
        "trained for a low loss need not follow the base optimizer."
    )
    return Chart("layers", _TITLE, caption, partial(_draw, comparison, diagnostics))


@styled()
def _draw(comparison: Comparison, diagnostics: Diagnostics) -> Figure:
    layers = diagnostics.layers
    subtitle = f"{describe_run(comparison, diagnostics)}. {comparison.candidate}, {layers.horizon} steps ahead"
    height = 0.8 + _ROW * len(layers.names)
    figure, axes = canvas(_TITLE, subtitle, height, len(layers.starts) + 1, ncols=2, sharey=True)
    left, right = axes[0]
    _draw_panel(left, layers, layers.cosine, layers.line_cosine)
    _draw_panel(right, layers, layers.ratio, layers.line_ratio)
    left.set(xlabel="cosine", xlim=_cosine_limits(layers))
    right.axvline(1, color=INK, linewidth=1)
    lengths = limits_of([1.0, *layers.ratio.flat, *layers.line_ratio.flat])
    right.set(xlabel="length: predicted / true", xlim=lengths)
    plain_log(right, "x")
    row_labels(left, layers.names)
    right.tick_params(axis="y", length=0)
    legend(figure, left, handletextpad=0.3)
    return figure


def _draw_panel(axes: Axes, layers: Layers, candidate: Values, line: Values) -> None:
    rows, count = np.arange(len(layers.names)), len(layers.starts)
    tick: dict[str, Any] = {"color": MUTED, "markersize": 15, "markeredgewidth": 1.6, "linestyle": "none"}
    axes.plot(_medians(line), rows, "|", label="line", **tick)
    for start, values, colour, height in zip(
        layers.starts, candidate, in_order(count), spread(0, count, 0.36), strict=True
    ):
        axes.plot(values, rows + height, "o", color=colour, label=f"step {start}")


def _cosine_limits(layers: Layers) -> tuple[float, float]:
    shown = np.concatenate([layers.cosine.ravel(), layers.line_cosine.ravel(), [0.0]])
    return float(np.nanmin(shown)) - 0.04, 1.04


def _medians(values: Values) -> Float[np.ndarray, " names"]:
    """Medians over the starts, without NaN."""
    return np.ma.median(np.ma.masked_invalid(values), axis=0).filled(np.nan)
