"""Draws figures: one Matplotlib style, one set of colours, identical bytes for identical figures, and HTML pages.

This room contains no machine learning. The rooms above choose what to draw:

    from metaopt.figures import line_chart, rendered

    figure = line_chart("Loss", "two networks", "step", "loss", [0, 10], [{"mlp": 2.0, "cnn": 2.2}, {"mlp": 1.0}])
    svg = rendered(figure)["svg"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .canvas import canvas as canvas
    from .canvas import legend as legend
    from .canvas import limits_of as limits_of
    from .canvas import line_chart as line_chart
    from .canvas import note as note
    from .canvas import plain_log as plain_log
    from .canvas import rendered as rendered
    from .canvas import row_labels as row_labels
    from .canvas import spread as spread
    from .canvas import styled as styled
    from .event_chart import event_chart as event_chart
    from .flow_chart import Box as Box
    from .flow_chart import flow_chart as flow_chart

_MODULES = {
    "Box": "flow_chart",
    "canvas": "canvas",
    "event_chart": "event_chart",
    "flow_chart": "flow_chart",
    "legend": "canvas",
    "limits_of": "canvas",
    "line_chart": "canvas",
    "note": "canvas",
    "plain_log": "canvas",
    "rendered": "canvas",
    "row_labels": "canvas",
    "spread": "canvas",
    "styled": "canvas",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a name at first use (PEP 562): Matplotlib takes a second, and colours do not need it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
