"""What a chart is: its numbers, and both ways to draw them."""

from typing import ClassVar, Protocol

from matplotlib.figure import Figure

from ...diagnostics import Diagnostics
from ...evaluation.results import Comparison
from ...figures.interactive import Interactive


class Chart(Protocol):
    """Numbers of an evaluation, drawn by Matplotlib for files, and by Plotly for a page on which one can point at them.

    Attributes:
        name: of its files.
        title: what it shows.
        caption: how to read it, in a sentence or two of Markdown.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @property
    def caption(self) -> str:
        """How to read it, in plain words."""

    def drawn(self) -> Figure:
        """For files."""

    def interactive(self) -> Interactive:
        """For a page."""


def case_of(comparison: Comparison) -> str:
    """What was trained, for the heading of a figure."""
    config = comparison.config
    seeds = f"{config['seeds']} random seed{'s' if config['seeds'] > 1 else ''}"
    rates = sorted({curve.rate for curve in comparison.curves if curve.rate}, key=len)
    lr = f" at lr {rates[0]}" if len(rates) == 1 else ""
    return f"{config['target_model']} on {config['task']}, {config['base_optimizer']}{lr}, {seeds}"


def subject_of(comparison: Comparison, portrait: Diagnostics) -> str:
    """Which training a portrait is of, for the heading of a figure."""
    config = comparison.config
    states = f"its running average (decay {portrait.averaging:g})" if portrait.averaging else "its weights"
    return (
        f"{config['target_model']} on {config['task']}, {config['base_optimizer']} alone at lr {portrait.rate}, "
        f"random seed {portrait.seed}, {states}"
    )
