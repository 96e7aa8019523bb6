"""Boxes in columns, and arrows between them: what was made from what."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .axes import WIDTH, canvas, styled
from .colours import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, VERMILION

_COLOURS = (ORANGE, GREEN, BLUE, PURPLE)
_LINE = 0.155  # height of a line of text [inches]
_PADDING = 0.1  # inside a box [inches]
_GAP = 0.22  # between two boxes of a column [inches]
_ARROW = 0.38  # width between two columns [inches]
_NARROWEST, _WIDEST = 1.25, 3.0  # widths of a box [inches]
_CHARACTER = 0.064  # width of a character [inches]
_BOLD = 1.08  # width of bold type over that
_MOST_LINES = 4  # of one text in a box


@dataclass(frozen=True)
class Box:
    """A box.

    Attributes:
        key: identifies it.
        label: small text at its top: what it is.
        title: bold text.
        lines: further texts.
        is_missing: whether it is drawn dashed, as something that is not there.
    """

    key: str
    label: str
    title: str
    lines: Sequence[str] = ()
    is_missing: bool = False


@styled()
def flow_chart(title: str, subtitle: str, columns: Sequence[Sequence[Box]], links: Sequence[tuple[str, str]]) -> Figure:
    """Draw columns of boxes, from left to right, each centred, and an arrow for each link, which passes behind boxes.

    A figure of many columns is wider than others, so that texts in it can be read.

    Args:
        columns: at least one, none of them empty.
        links: keys of the boxes at the beginning and at the end of each arrow.
    """
    count = len(columns)
    whole = max(WIDTH, count * (_NARROWEST + _ARROW))
    width = min((whole - 0.1 - _ARROW * (count - 1)) / count, _WIDEST)
    texts = {box.key: _wrapped(box, int((width - 2 * _PADDING) / _CHARACTER)) for column in columns for box in column}
    heights = {key: len(lines) * _LINE + 2 * _PADDING for key, lines in texts.items()}
    totals = [sum(heights[box.key] for box in column) + _GAP * (len(column) - 1) for column in columns]
    height = max(totals) + 0.2
    figure, axes = canvas(title, subtitle, height)
    figure.set_figwidth(whole)
    (only,) = axes.flat
    only.set(xlim=(0, whole), ylim=(-height / 2, height / 2))
    only.axis("off")
    left = (whole - count * width - (count - 1) * _ARROW) / 2
    places: dict[str, tuple[float, float]] = {}
    for number, (column, total) in enumerate(zip(columns, totals, strict=True)):
        top, x = total / 2, left + number * (width + _ARROW)
        colour = _COLOURS[(number + len(_COLOURS) - count) % len(_COLOURS)]
        for box in column:
            _draw(only, box, texts[box.key], x, top, width, heights[box.key], colour)
            places[box.key] = (x, top - heights[box.key] / 2)
            top -= heights[box.key] + _GAP
    missing = {box.key for column in columns for box in column if box.is_missing}
    for start, end in links:
        is_dashed = start in missing or end in missing
        _link(only, places[start], places[end], width, VERMILION if is_dashed else MUTED, is_dashed)
    return figure


def _wrapped(box: Box, characters: int) -> list[tuple[str, str]]:
    """The lines of a box, each with its role: label, title or text."""
    titles = _lines(box.title, int(characters / _BOLD))
    lines = [("label", box.label), *(("title", line) for line in titles)]
    return lines + [("text", line) for text in box.lines for line in _lines(text, characters)]


def _lines(text: str, characters: int) -> list[str]:
    broken = textwrap.wrap(text, characters)
    if len(broken) > _MOST_LINES:
        return [*broken[: _MOST_LINES - 1], broken[_MOST_LINES - 1][: characters - 3] + "…"]
    return broken


def _draw(
    axes: Axes, box: Box, lines: Sequence[tuple[str, str]], x: float, top: float, width: float, height: float, hue: str
) -> None:
    colour = VERMILION if box.is_missing else hue
    shape = FancyBboxPatch(
        (x, top - height),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor="white",
        edgecolor=colour,
        linewidth=1.4,
        linestyle="--" if box.is_missing else "-",
    )
    axes.add_patch(shape)
    for number, (role, text) in enumerate(lines):
        y = top - _PADDING - (number + 0.5) * _LINE
        weight = "bold" if role == "title" else "normal"
        shade = colour if role == "label" else INK if role == "title" else MUTED
        axes.text(x + _PADDING, y, text, va="center", fontsize=8, fontweight=weight, color=shade)


def _link(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], width: float, colour: str, is_dashed: bool
) -> None:
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.0, "shrinkA": 1, "shrinkB": 1,
             "linestyle": "--" if is_dashed else "-", "mutation_scale": 9}  # fmt: skip
    if start[0] == end[0]:  # in one column: on its right side
        side, bend = start[0] + width, 0.35 if start[1] < end[1] else -0.35
        arrow["connectionstyle"] = f"arc3,rad={bend}"
        axes.annotate("", xy=(side, end[1]), xytext=(side, start[1]), arrowprops=arrow, zorder=0)
        return
    axes.annotate("", xy=end, xytext=(start[0] + width, start[1]), arrowprops=arrow, zorder=0)
