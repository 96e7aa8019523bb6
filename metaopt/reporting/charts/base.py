"""A chart, and the subtitles that charts share."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from ...diagnostics import Diagnostics
from ...evaluation.results import Comparison


class Chart(NamedTuple):
    """One chart of an evaluation.

    Attributes:
        name: name of its files, without ending.
        title: heading of the figure.
        caption: how to read the figure, in a few sentences.
        figure: draws a new figure at each call. A figure that is saved twice can give different bytes.
    """

    name: str
    title: str
    caption: str
    figure: Callable[[], Figure]


def describe_case(comparison: Comparison) -> str:
    """Network, task, base optimizer, learning rate and number of random seeds."""
    config = comparison.config
    seeds = f"{config['seeds']} random seed{'s' if config['seeds'] > 1 else ''}"
    rates = sorted({curve.rate for curve in comparison.curves if curve.rate}, key=len)
    lr = f" at lr {rates[0]}" if len(rates) == 1 else ""
    return f"{config['target_model']} on {config['task']}, {config['base_optimizer']}{lr}, {seeds}"


def describe_run(comparison: Comparison, diagnostics: Diagnostics) -> str:
    """The hold run that diagnostics were measured on."""
    config = comparison.config
    states = f"its running average (decay {diagnostics.averaging:g})" if diagnostics.averaging else "its weights"
    return (
        f"{config['target_model']} on {config['task']}, {config['base_optimizer']} alone at lr {diagnostics.rate}, "
        f"random seed {diagnostics.seed}, {states}"
    )
