"""Figures of a training. They need no display."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..figures import canvas, legend, styled
from ..figures.colours import MUTED


@styled()
def loss_figure(steps: Sequence[int], losses: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw every loss over training time [optimizer steps]; steps without a value are left out."""
    figure, axes = _lines(f"Losses of {title}", "Each at the steps at which it was measured", steps, losses)
    axes.set(xlabel="optimizer steps", ylabel="loss")
    return figure


@styled()
def learning_curve(minutes: Sequence[float], speedups: Sequence[Mapping[str, float]]) -> Figure:
    """Draw how the speed-up on held-out random seeds grows with meta-training.

    Args:
        minutes: when each race was run [minutes of meta-training].
        speedups: by ingredient of the mixture; a race need not have every ingredient.
    """
    subtitle = "Adam's steps to its best loss over those with nowcasts, at equal learning rates; random seeds held out"
    figure, axes = _lines("Speed-up against meta-training", subtitle, minutes, speedups)
    axes.axhline(1.0, linestyle=":", color=MUTED, zorder=1)
    axes.set(xlabel="minutes of meta-training", ylabel="speed-up")
    return figure


def _lines(
    title: str, subtitle: str, places: Sequence[float], values: Sequence[Mapping[str, float]]
) -> tuple[Figure, Axes]:
    """A line for each name, through the places that have a value of it."""
    names = sorted({name for named in values for name in named})
    figure, axes = canvas(title, subtitle, 3.4, len(names))
    (only,) = axes.flat
    for name in names:
        points = [(place, named[name]) for place, named in zip(places, values, strict=True) if name in named]
        only.plot(*zip(*points, strict=True), marker=".", label=name)
    if names:
        legend(figure, only)
    return figure, only
