"""Charts of an evaluation: one module per chart, one function in it that returns a `Chart`."""

from ...diagnostics import Diagnostics
from ...evaluation.results import Comparison
from .attention import attention_chart
from .base import Chart
from .horizons import horizons_chart
from .layers import layers_chart
from .loss_curves import loss_curves_chart
from .nowcasts import nowcasts_chart
from .plane import plane_chart
from .steps_to_target import steps_to_target_chart

__all__ = ["Chart", "charts"]


def charts(comparison: Comparison, diagnostics: Diagnostics | None = None) -> list[Chart]:
    """All charts for which there are measurements.

        for chart in charts(at_best_rates(comparison)):
            chart.figure().savefig(f"{chart.name}.png")

    Args:
        comparison: each contender at one learning rate, as from `at_best_rates`.
        diagnostics: measurements of one training; without them, three charts remain.
    """
    found = [loss_curves_chart(comparison), steps_to_target_chart(comparison), nowcasts_chart(comparison)]
    if diagnostics is None:
        return found
    if diagnostics.plane is not None:
        found.append(plane_chart(comparison, diagnostics, diagnostics.plane))
    found.append(layers_chart(comparison, diagnostics))
    if diagnostics.attention is not None:
        found.append(attention_chart(comparison, diagnostics, diagnostics.attention))
    return [*found, horizons_chart(comparison, diagnostics)]
