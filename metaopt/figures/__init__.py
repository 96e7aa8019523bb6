"""Draws figures: one Matplotlib style, one set of colours, identical bytes for identical figures, and HTML pages.

This room contains no machine learning. The rooms above choose what to draw:

    from metaopt.figures import line_chart, rendered

    figure = line_chart("Loss", "two networks", "step", "loss", [0, 10], [{"mlp": 2.0, "cnn": 2.2}, {"mlp": 1.0}])
    svg = rendered(figure)["svg"]
"""

from .canvas import canvas, legend, limits_of, line_chart, note, plain_log, rendered, row_labels, spread, styled
from .event_chart import event_chart
from .flow_chart import Box, flow_chart

__all__ = [
    "Box",
    "canvas",
    "event_chart",
    "flow_chart",
    "legend",
    "limits_of",
    "line_chart",
    "note",
    "plain_log",
    "rendered",
    "row_labels",
    "spread",
    "styled",
]
