"""The figure of a network that grew: its loss, the stages of its slots with α, and its weights."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..figures import canvas, legend, plain_log, row_labels, styled
from ..figures.colours import BLUE, GREEN, HEIGHTS, INK, MUTED, ORANGE, PURPLE, SKY, VERMILION
from ..growth.alpha import alpha
from ..growth.history import GrowthHistory
from ..growth.stages import Stage

_COLOURS: Mapping[Stage, str] = {
    Stage.TRAINING: SKY,
    Stage.BLENDING: ORANGE,
    Stage.SHADOWING: PURPLE,
    Stage.PROBATIONARY: BLUE,
    Stage.FOSSILIZED: GREEN,
    Stage.EMBARGOED: HEIGHTS[3],
}
"""Colours of the stages that last; the others are passed in a step."""

_LOSS, _WEIGHTS, _ROW = 2.4, 1.0, 0.5  # heights [inches]
_BAND = 0.6  # height of a stage, of its row
_PALE = 0.3  # opacity of a seed that is blended in, above α
_POINTS = 65  # of a curve of α
_CHARACTER = 0.012  # width of a character of a name, as a share of the figure
_STYLES = ({"color": INK}, {"color": MUTED, "linestyle": "--"}, {"color": MUTED, "linestyle": ":"})


@styled()
def growth_figure(title: str, histories: Mapping[str, GrowthHistory], end: int) -> Figure:
    """Draw the loss, the stages of each slot and the weights over a training.

    Args:
        histories: that of the network that grew, first; further ones, those of its twins, only for their losses.
        end: the last step [steps].
    """
    grown = next(iter(histories.values()))
    taps = [*grown.measurements[0].alphas]
    heights = (_LOSS, 0.2 + _ROW * len(taps), _WEIGHTS)
    subtitle = (
        "Loss on the split guard at each decision; the stage of each slot, with the blending filled up to the share α "
        "of the seed; and the weights of all seeds over those of the host"
    )
    entries = len(histories) + len(_COLOURS) + 1
    figure, axes = canvas(title, subtitle, sum(heights), entries, nrows=3, sharex=True, height_ratios=heights)
    loss, stages, weights = axes[:, 0]
    for style, (name, history) in zip(_STYLES, histories.items(), strict=False):
        points = [(each.step, each.loss) for each in history.measurements]
        loss.plot(*zip(*points, strict=True), label=name, **style)
    for row, tap in enumerate(taps):
        _draw_stages(stages, row, grown, tap, end)
    steps = [each.step for each in grown.measurements]
    added = [each.seed_weights / grown.host_weights for each in grown.measurements]
    weights.fill_between(steps, added, step="pre", color=HEIGHTS[2])
    weights.step(steps, added, where="pre", color=INK)
    for stage, colour in _COLOURS.items():
        loss.plot([], [], color=colour, linewidth=6, label=str(stage))
    loss.plot([], [], color=VERMILION, label="removed")
    legend(figure, loss)
    loss.set(ylabel="loss")
    plain_log(loss, "y")
    row_labels(stages, taps)
    stages.grid(visible=False)
    weights.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    weights.set(ylabel="grown", xlabel="optimizer steps", xlim=(0, max(end, 1)), ylim=(0, None))
    return figure


def _draw_stages(axes: Axes, row: int, history: GrowthHistory, tap: str, end: int) -> None:
    """A band for each stage of a slot, with the names of the blueprints."""
    bottom = row + _BAND / 2
    for stage, first, last in stages_of(history, tap, end):
        if stage is Stage.CULLED:
            axes.vlines(first, row - 0.36, row + 0.36, colors=VERMILION, linewidth=2)
        if stage not in _COLOURS or last == first:
            continue
        is_blending = stage is Stage.BLENDING
        axes.barh(row, last - first, _BAND, left=first, color=_COLOURS[stage], alpha=_PALE if is_blending else 1.0)
        if is_blending:
            steps, shares = alpha_curve(history, first, last)
            axes.fill_between(steps, bottom, bottom - _BAND * shares, color=_COLOURS[stage], linewidth=0)
    _draw_names(axes, row, history, tap, end)


def _draw_names(axes: Axes, row: int, history: GrowthHistory, tap: str, end: int) -> None:
    """The name of the blueprint above the beginning of each seed, where there is room for it."""
    born = [event for event in history.events if event.tap == tap and event.after is Stage.GERMINATED]
    for event, following in pairwise([*((each.blueprint, each.step) for each in born), ("", end)]):
        if following[1] - event[1] > _CHARACTER * len(event[0]) * end:
            axes.text(event[1], row - _BAND / 2 - 0.04, event[0], fontsize=8, va="bottom", color=MUTED)


def alpha_curve(history: GrowthHistory, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """α of a seed that is blended in from one step to another: the steps and the values."""
    steps = np.unique(np.linspace(first, last, min(_POINTS, last - first + 1)).round().astype(int))
    settings = history.settings
    return steps, np.array([alpha(settings.schedule, step - first, settings.blend_steps) for step in steps])


def stages_of(history: GrowthHistory, tap: str, end: int) -> Sequence[tuple[Stage, int, int]]:
    """Each stage of a slot with its first step and the first step of the next one."""
    changes = [(Stage.DORMANT, 0), *((event.after, event.step) for event in history.events if event.tap == tap)]
    bounded = [*changes, (Stage.DORMANT, end)]
    return [(stage, first, last) for (stage, first), (_, last) in pairwise(bounded)]
