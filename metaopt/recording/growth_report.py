"""The metrics, the figure and the summary of a network that grew."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.text import counted
from ..figures import canvas, legend, styled
from ..figures.colours import BLUE, GREEN, HEIGHTS, MUTED, ORANGE, PURPLE, SKY, VERMILION
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

_CULL = VERMILION


def growth_metrics(history: GrowthHistory) -> dict[str, float]:
    """`growth_weights`, weights of all growth seeds, and `alpha/<tap>`, at the last measurement."""
    last = history.measurements[-1]
    return {"growth_weights": float(last.seed_weights), **{f"alpha/{tap}": value for tap, value in last.alphas.items()}}


def describe_growth(history: GrowthHistory) -> str:
    """What grew, in a sentence."""
    ended = {event.tap: event for event in history.events if event.after is Stage.FOSSILIZED}
    kept = ", ".join(f"{event.blueprint} at {tap} from step {event.step:,}" for tap, event in ended.items())
    culled = sum(event.after is Stage.CULLED for event in history.events)
    weights = history.measurements[-1].seed_weights
    share = f" (+{weights / history.host_weights:.0%})" if weights else ""
    return f"It grew by {weights:,} weights{share}: {kept or 'nothing stays'}; {counted(culled, 'seed')} removed."


@styled()
def growth_figure(title: str, histories: Mapping[str, GrowthHistory], end: int) -> Figure:
    """The loss, the stages of each slot, α and the weights over a training.

    Args:
        histories: that of the network that grew, first; further ones, such as that of its twin, only for their losses.
        end: the last step [steps].
    """
    grown = next(iter(histories.values()))
    taps = [*grown.measurements[0].alphas]
    heights = (2.4, 0.35 + 0.3 * len(taps), 1.0, 1.0)
    subtitle = (
        "Loss on the split guard at each decision. Below: the stage of each slot, where a red line is a seed that was "
        "removed; the share α of each seed; and the weights of all seeds over those of the host"
    )
    figure, axes = canvas(title, subtitle, sum(heights), len(histories) + len(_COLOURS), nrows=4, sharex=True,
                          height_ratios=heights)  # fmt: skip
    loss, stages, alpha, weights = axes[:, 0]
    for name, history in histories.items():
        style = "-" if history is grown else "--"
        points = [(each.step, each.loss) for each in history.measurements]
        loss.plot(*zip(*points, strict=True), style, label=name, color=BLUE if history is grown else MUTED)
    for row, tap in enumerate(taps):
        _draw_stages(stages, row, grown, tap, end)
        alpha.plot(
            [each.step for each in grown.measurements], [each.alphas[tap] for each in grown.measurements], label=tap
        )
    steps = [each.step for each in grown.measurements]
    weights.step(steps, [each.seed_weights / grown.host_weights for each in grown.measurements], where="post")
    for stage, colour in _COLOURS.items():
        loss.plot([], [], color=colour, linewidth=6, label=str(stage))
    legend(figure, loss)
    loss.set(ylabel="loss")
    stages.set_yticks(range(len(taps)), taps)
    stages.set_ylim(len(taps) - 0.5, -0.5)
    stages.grid(visible=False)
    alpha.set(ylabel="α", ylim=(-0.05, 1.05))
    weights.set(ylabel="seeds / host", xlabel="optimizer steps", xlim=(0, end), ylim=(0, None))
    return figure


def _draw_stages(axes: Axes, row: int, history: GrowthHistory, tap: str, end: int) -> None:
    """A band for each stage of a slot."""
    for stage, first, last in stages_of(history, tap, end):
        if stage in _COLOURS and last > first:
            axes.barh(row, last - first, 0.7, left=first, color=_COLOURS[stage])
        if stage is Stage.CULLED:
            axes.vlines(first, row - 0.45, row + 0.45, colors=_CULL, linewidth=2)


def stages_of(history: GrowthHistory, tap: str, end: int) -> Sequence[tuple[Stage, int, int]]:
    """Each stage of a slot with its first step and the first step of the next one."""
    changes = [(Stage.DORMANT, 0), *((event.after, event.step) for event in history.events if event.tap == tap)]
    bounded = [*changes, (Stage.DORMANT, end)]
    return [(stage, first, last) for (stage, first), (_, last) in pairwise(bounded)]
