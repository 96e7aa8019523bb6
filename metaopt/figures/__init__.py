"""How figures look: one style, one set of colours, files that are the same each time, and pages that need no network.

This room knows no machine learning. What is drawn stands beside its numbers, in the rooms above.
"""

from .canvas import canvas, legend, limits_of, note, plain_log, rendered, row_labels, spread, styled

__all__ = [
    "canvas",
    "legend",
    "limits_of",
    "note",
    "plain_log",
    "rendered",
    "row_labels",
    "spread",
    "styled",
]
