"""Figures of a training. They need no display."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def loss_figure(steps: Sequence[int], losses: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw every loss over training time [optimizer steps]; steps without a value are left out."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in sorted({name for named in losses for name in named}):
        points = [(step, named[name]) for step, named in zip(steps, losses, strict=True) if name in named]
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel="optimizer steps", ylabel="loss", title=title)
    if axes.lines:
        axes.legend()
    return figure
