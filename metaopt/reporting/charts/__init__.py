"""The charts of an evaluation: one file each, with its numbers and both ways to draw them."""

from ...diagnostics import Diagnostics
from ...evaluation.results import Comparison
from .arrivals import Arrivals
from .attention import AttentionChart
from .base import Chart
from .gains import Gains
from .horizons import HorizonsChart
from .layers import LayersChart
from .losses import LossCurves
from .plane import PlaneChart

__all__ = ["Chart", "charts"]


def charts(comparison: Comparison, portrait: Diagnostics | None = None) -> list[Chart]:
    """All charts that there are numbers for.

    Args:
        comparison: with each contender at one learning rate.
        portrait: a closer look at one of its trainings, where there was one.
    """
    found: list[Chart] = [LossCurves(comparison), Arrivals(comparison), Gains(comparison)]
    if portrait is None:
        return found
    if portrait.plane is not None:
        found.append(PlaneChart(comparison, portrait, portrait.plane))
    found.append(LayersChart(comparison, portrait, portrait.layers))
    if portrait.attention is not None:
        found.append(AttentionChart(comparison, portrait, portrait.attention))
    return [*found, HorizonsChart(comparison, portrait, portrait.horizons)]
