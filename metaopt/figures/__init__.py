"""Draws figures: one Matplotlib style, one set of colours, identical bytes for identical figures, and HTML pages.

This room contains no machine learning. The rooms above choose what to draw:

    from metaopt.figures import line_chart, rendered

    figure = line_chart("Loss", "two networks", "step", "loss", [0, 10], [{"mlp": 2.0, "cnn": 2.2}, {"mlp": 1.0}])
    svg = rendered(figure)["svg"]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .axes import canvas as canvas
    from .axes import legend as legend
    from .axes import limits_of as limits_of
    from .axes import line_chart as line_chart
    from .axes import note as note
    from .axes import plain_log as plain_log
    from .axes import rendered as rendered
    from .axes import row_labels as row_labels
    from .axes import spread as spread
    from .axes import styled as styled
    from .events import event_chart as event_chart
    from .flows import Box as Box
    from .flows import flow_chart as flow_chart

_MODULES = {
    "Box": "flows",
    "canvas": "axes",
    "event_chart": "events",
    "flow_chart": "flows",
    "legend": "axes",
    "limits_of": "axes",
    "line_chart": "axes",
    "note": "axes",
    "plain_log": "axes",
    "rendered": "axes",
    "row_labels": "axes",
    "spread": "axes",
    "styled": "axes",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a name at first use (PEP 562): Matplotlib takes a second, and colours do not need it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
