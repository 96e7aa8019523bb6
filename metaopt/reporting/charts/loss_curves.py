"""Validation loss against steps, and the nowcasts below."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.results import Comparison
from ...figures import canvas, legend, limits_of, plain_log, styled
from ...figures.colours import MUTED
from ..formatting import label
from .base import Chart, describe_case
from .contenders import CANDIDATE, contender_styles

_TITLE = "Validation loss in training"
_ROW = 0.2  # of the nowcasts [inches]


def loss_curves_chart(comparison: Comparison) -> Chart:
    """Validation losses of the prominent contenders, and the nowcasts of the candidate."""
    caption = (
        "Thick: the median over random seeds; thin: each random seed. Contenders of one random seed share initial "
        f"weights and batches. Below: the nowcasts of {comparison.candidate}, one row per random seed, filled where "
        "the guard accepted them."
    )
    return Chart("loss_curves", _TITLE, caption, partial(_draw, comparison))


@styled()
def _draw(comparison: Comparison) -> Figure:
    styles = {name: style for name, style in contender_styles(comparison).items() if style.prominent}
    steps = comparison.curves[0].steps
    strip = 0.25 + _ROW * len(comparison.curves_of(comparison.candidate))
    ratios = {"height_ratios": (3.3, strip), "sharex": True}
    subtitle = f"{describe_case(comparison)}; thick: median over them"
    figure, axes = canvas(_TITLE, subtitle, 3.7 + strip, len(styles), nrows=2, **ratios)
    above, below = axes[:, 0]
    shown = []
    for name, style in styles.items():
        losses = np.array([curve.losses for curve in comparison.curves_of(name)])
        shown += [float(loss) for loss in losses.flat]
        for row in losses:
            above.plot(steps, row, color=style.colour, linewidth=0.6, alpha=0.3)
        line: dict[str, Any] = {"linewidth": style.width, "linestyle": style.linestyle, "zorder": style.order}
        above.plot(steps, np.median(losses, axis=0), color=style.colour, label=label(name, comparison.config), **line)
    above.set(ylabel="validation loss", ylim=limits_of(shown, 0.04))
    plain_log(above, "y")
    legend(figure, above)
    _draw_nowcasts(below, comparison)
    return figure


def _draw_nowcasts(axes: Axes, comparison: Comparison) -> None:
    curves = comparison.curves_of(comparison.candidate)
    marker: dict[str, Any] = {"color": CANDIDATE, "markersize": 5, "markeredgewidth": 0.9}
    for row, curve in enumerate(curves):
        for accepted, face in ((True, CANDIDATE), (False, "white")):
            steps = [event.step for event in curve.events if event.accepted == accepted]
            axes.plot(steps, [row] * len(steps), "o", markerfacecolor=face, **marker)
    axes.set_yticks(range(len(curves)), [str(curve.seed) for curve in curves], fontsize=8)
    axes.set(xlabel="optimizer steps", ylim=(len(curves) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    kept = f"nowcasts of {comparison.candidate} by random seed: ● kept  ○ rejected"
    axes.set_title(kept, fontsize=9, color=MUTED, pad=4)
