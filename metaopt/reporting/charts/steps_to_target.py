"""Steps to the target, and the speed-up with its confidence interval."""

from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.results import HOLD, Comparison
from ...evaluation.summary import ContenderSummary, Summary
from ...figures import canvas, limits_of, note, plain_log, row_labels, spread, styled
from ...figures.colours import INK, MUTED
from ..formatting import label, legend, steps
from .base import Chart, describe_case
from .contenders import contender_styles

_TITLE = "Steps to the best loss of the base optimizer alone"
_ROW = 0.36  # [inches]
_WIDTH, _NEVER = 1.1, 1.05  # end of the axis, and place of runs that never reach the target [budgets]


def steps_to_target_chart(comparison: Comparison) -> Chart:
    """The steps of each contender to the best loss of the base optimizer alone, and its speed-up."""
    alone = label(HOLD, comparison.config)
    caption = (
        f"{legend(comparison.config)} Left: each dot is a random seed; ▸ did not reach the target within the budget "
        "and counts as one measurement later. Bars and numbers: geometric means. Right: speed-up (steps of "
        f"{alone} / steps of the contender) with its 95 % interval over random seeds; above 1 is faster."
    )
    return Chart("steps_to_target", _TITLE, caption, partial(_draw, comparison))


@styled()
def _draw(comparison: Comparison) -> Figure:
    contenders, styles = Summary(comparison).contenders, contender_styles(comparison)
    budget = comparison.curves[0].steps[-1]
    subtitle = f"{describe_case(comparison)}. Dots: random seeds (▸: never); bars and numbers: geometric means"
    shape: dict[str, Any] = {"ncols": 2, "width_ratios": (1.5, 1), "sharey": True}
    figure, axes = canvas(_TITLE, subtitle, 0.8 + _ROW * len(contenders), **shape)
    left, right = axes[0]
    for row, contender in enumerate(contenders):
        colour = styles[contender.contender].colour
        _draw_steps(left, row, contender, budget, colour)
        _draw_speed_up(right, row, contender, colour)
        note(right, row, f"{steps(contender.full)} steps, ×{contender.full.speed_up.mean:.2f}", colour=INK)
    left.axvline(budget, color=MUTED, linestyle=":", linewidth=1)
    left.set(xlabel="optimizer steps", xlim=(0, budget * _WIDTH))
    right.axvline(1, color=INK, linewidth=1)
    right.set(xlabel="speed-up (95 %)", xlim=_limits(contenders))
    plain_log(right, "x")
    row_labels(left, [label(contender.contender, comparison.config) for contender in contenders])
    right.tick_params(axis="y", length=0)
    return figure


def _draw_steps(axes: Axes, row: int, contender: ContenderSummary, budget: int, colour: str) -> None:
    full = contender.full
    reached = [steps for steps in full.steps if steps is not None]
    axes.plot(reached, spread(row, len(reached)), "o", color=colour, alpha=0.75, markeredgewidth=0)
    never = spread(row, full.never)
    axes.plot([budget * _NEVER] * full.never, never, ">", color=colour, alpha=0.75, markeredgewidth=0)
    axes.plot([full.counted_steps] * 2, [row - 0.32, row + 0.32], color=colour, linewidth=2.4)


def _draw_speed_up(axes: Axes, row: int, contender: ContenderSummary, colour: str) -> None:
    if contender.contender == HOLD:
        return
    mean, low, high = contender.full.speed_up
    if low is not None and high is not None and low < high:
        axes.plot([low, high], [row, row], color=colour, linewidth=1.6)
    axes.plot([mean], [row], "D", color=colour, markersize=5.5)


def _limits(contenders: list[ContenderSummary]) -> tuple[float, float] | None:
    """Limits around all means; intervals are cut off at twice that range, for those of two seeds can span decades."""
    speed_ups = [contender.full.speed_up for contender in contenders]
    means = [each.mean for each in speed_ups]
    bounds = [bound for each in speed_ups for bound in each[1:] if bound is not None]
    widest = (min(means) / 2, max(means) * 2)
    return limits_of([*means, 1.0, *(min(max(bound, widest[0]), widest[1]) for bound in bounds)])
