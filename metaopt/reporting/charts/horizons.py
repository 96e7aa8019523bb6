"""Loss of predictions against their horizon."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...diagnostics import Diagnostics, Horizons
from ...evaluation.results import HOLD, Comparison
from ...figures import canvas, legend, styled
from ...figures.colours import INK, MUTED, ORANGE
from ..formatting import label
from .base import Chart, describe_run
from .contenders import CANDIDATE

_TITLE = "Loss as a function of the horizon"
_WORST = 0.7  # of the log loss: higher values are cut off, unless all are higher


class _Series(NamedTuple):
    name: str
    values: Float[np.ndarray, "starts horizons"]
    colour: str
    dashed: bool = False


def horizons_chart(comparison: Comparison, diagnostics: Diagnostics) -> Chart:
    """Change of the log loss for predictions at several horizons."""
    proposed = ", ".join(map(str, diagnostics.horizons.proposed))
    caption = (
        "Change of the log loss from W_t to a prediction of the weights at t_end, against t_end − t_start. Below zero "
        f"is better; −0.1 is about a tenth less. Dashed: {label(HOLD, comparison.config)}, that many steps later; a "
        "prediction below it has a lower loss. Each panel is another step of W_t. Dotted: the horizons that nowcasts "
        f"propose here ({proposed} steps)."
    )
    return Chart("horizons", _TITLE, caption, partial(_draw, comparison, diagnostics))


@styled()
def _draw(comparison: Comparison, diagnostics: Diagnostics) -> Figure:
    subtitle = f"{describe_run(comparison, diagnostics)}. From W_t at an early, a middle and a late step"
    horizons = diagnostics.horizons
    starts, series = horizons.starts, _series(comparison, horizons)
    figure, axes = canvas(_TITLE, subtitle, 3.3, 3, ncols=len(starts), sharey=True, sharex=True)
    for number, panel in enumerate(axes[0]):
        _draw_panel(panel, horizons, series, number)
        panel.set_title(f"from step {starts[number]}", fontsize=9.5, color=MUTED)
    axes[0, 0].set(ylabel="change of log loss", ylim=_limits(series))
    axes[0, len(starts) // 2].set_xlabel("horizon t_end − t_start [steps]")
    legend(figure, axes[0, 0])
    return figure


def _series(comparison: Comparison, horizons: Horizons) -> list[_Series]:
    return [
        _Series(f"{label(HOLD, comparison.config)}, that many steps later", horizons.hold, INK, dashed=True),
        _Series("line", horizons.line, ORANGE),
        _Series(comparison.candidate, horizons.candidate, CANDIDATE),
    ]


def _limits(series: list[_Series]) -> tuple[float, float]:
    shown = np.concatenate([each.values.ravel() for each in series])
    shown = shown[np.isfinite(shown)]
    low, high = min(float(shown.min(initial=0.0)), -0.02), max(float(shown.max(initial=0.0)), 0.02)
    high = min(high, max(_WORST, -low))
    room = 0.06 * (high - low)
    return low - room, high + room


def _draw_panel(axes: Axes, horizons: Horizons, series: list[_Series], number: int) -> None:
    for proposed in horizons.proposed:
        axes.axvline(proposed, color="#BBBBBB", linewidth=1, linestyle=":")
    axes.axhline(0, color="#999999", linewidth=1)
    for each in series:
        style: dict[str, Any] = {"linestyle": "--" if each.dashed else "-", "marker": None if each.dashed else "o"}
        axes.plot(horizons.horizons, each.values[number], color=each.colour, label=each.name, markersize=4.5, **style)
