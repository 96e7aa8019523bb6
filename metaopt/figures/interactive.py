"""The same figures for a browser: what Plotly draws, as plain values, in the colours and fonts of the drawn ones."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from numpy.typing import NDArray

from .colours import FAINT, INK, MUTED

Interactive = Mapping[str, Any]
"""A figure of Plotly: `data` (traces) and `layout`."""

Values = Sequence[Any] | NDArray[Any]
"""Numbers or words, one per point."""

FONT = "'DejaVu Sans', Arial, Helvetica, sans-serif"

_DIGITS = 5  # of a number on a page: more than one can read off, few enough that pages stay small


def interactive(
    traces: Iterable[Mapping[str, Any]], height: int, columns: Sequence[float] = (1.0,), **layout: Any
) -> Interactive:
    """A figure with axes that look like those of the drawn ones.

    Args:
        traces: as Plotly takes them.
        height: of the figure [pixels].
        columns: widths of panels beside each other, which are called x, x2, …, relative to one another.
        layout: further settings, those of an axis merged into ours (`xaxis={"title": …}`).
    """
    axes = {name: {**ours, **layout.pop(name, {})} for name, ours in _axes(columns).items()}
    ours = {
        "height": height,
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 64, "r": 20, "t": 12, "b": 52},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "white", "bordercolor": MUTED, "font": {"family": FONT, "color": INK}},
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12}},
        **axes,
    }
    return {"data": [dict(trace) for trace in traces], "layout": {**ours, **layout}}


def lines(x: Values, y: Values, name: str, colour: str, **options: Any) -> dict[str, Any]:
    """A line through points."""
    line = {"color": colour, "width": options.pop("width", 2), "dash": options.pop("dash", "solid")}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": escape(name), "line": line, **options}


def dots(x: Values, y: Values, name: str, colour: str, **options: Any) -> dict[str, Any]:
    """Points."""
    marker = {"color": colour, "size": options.pop("size", 8), "symbol": options.pop("symbol", "circle")}
    return {"type": "scatter", "mode": "markers", "x": x, "y": y, "name": escape(name), "marker": marker, **options}


def log_axis(values: Iterable[float], title: str, margin: float = 0.05) -> dict[str, Any]:
    """A logarithmic axis that holds all positive finite values."""
    logs = [math.log10(value) for value in values if math.isfinite(value) and value > 0]
    low, high = (min(logs), max(logs)) if logs else (-1.0, 1.0)
    room = max(margin * (high - low), 0.01)
    ticks = {"dtick": "D2"} if high - low > 0.5 else {"nticks": 6}
    return {"type": "log", "title": {"text": title}, "range": [low - room, high + room], "tickformat": "~r", **ticks}


def row_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis of named rows, the first one on top."""
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": [escape(name) for name in names]}
    return {**ticks, "range": [len(names) - 0.5, -0.5], "zeroline": False, "ticklen": 0, "automargin": True}


def to_json(figure: Interactive) -> str:
    """A figure as strict JSON that can stand in a script: rounded, what is not finite as null."""
    return json.dumps(_plain(figure), allow_nan=False, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def _axes(columns: Sequence[float]) -> dict[str, dict[str, Any]]:
    gap, axes, begin = 0.06 if len(columns) > 1 else 0.0, {}, 0.0
    for number, width in enumerate(columns, 1):
        suffix = str(number) if number > 1 else ""
        share = (1 - gap * (len(columns) - 1)) * width / sum(columns)
        domain = {"domain": [round(begin, 4), min(round(begin + share, 4), 1.0)], "anchor": f"y{suffix}"}
        axes[f"xaxis{suffix}"] = {**_axis(), **domain}
        axes[f"yaxis{suffix}"] = {**_axis(), "anchor": f"x{suffix}"}
        begin += share + gap
    return axes


def _axis() -> dict[str, Any]:
    return {
        "gridcolor": FAINT,
        "zeroline": False,
        "linecolor": "#999999",
        "showline": True,
        "ticks": "outside",
        "tickcolor": "#999999",
        "automargin": True,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
