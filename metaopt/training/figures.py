"""Figures of a training. They need no display."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ..figures import canvas, legend, styled
from ..figures.colours import MUTED


@styled()
def loss_figure(steps: Sequence[int], losses: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw every loss over training time [optimizer steps]; steps without a value are left out."""
    names = sorted({name for named in losses for name in named})
    figure, axes = canvas(f"Losses of {title}", "Each at the steps at which it was measured", 3.4, len(names))
    (only,) = axes.flat
    for name in names:
        points = [(step, named[name]) for step, named in zip(steps, losses, strict=True) if name in named]
        only.plot(*zip(*points, strict=True), marker=".", label=name)
    only.set(xlabel="optimizer steps", ylabel="loss")
    if names:
        legend(figure, only)
    return figure


@styled()
def learning_curve(minutes: Sequence[float], speedups: Sequence[Mapping[str, float]]) -> Figure:
    """Draw how the speed-up on held-out random seeds grows with meta-training.

    Args:
        minutes: when each race was run [minutes of meta-training].
        speedups: by ingredient of the mixture; a race need not have every ingredient.
    """
    names = sorted({name for raced in speedups for name in raced})
    subtitle = (
        "Adam's steps to its best loss over those with nowcasts, at the same learning rates; random seeds held out"
    )
    figure, axes = canvas("Speed-up against meta-training", subtitle, 3.4, len(names))
    (only,) = axes.flat
    only.axhline(1.0, linestyle=":", color=MUTED)
    for name in names:
        points = [(minute, raced[name]) for minute, raced in zip(minutes, speedups, strict=True) if name in raced]
        only.plot(*zip(*points, strict=True), marker=".", label=name)
    only.set(xlabel="minutes of meta-training", ylabel="speed-up")
    if names:
        legend(figure, only)
    return figure
