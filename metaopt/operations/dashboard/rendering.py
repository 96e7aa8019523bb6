"""The page as HTML. Jinja escapes whatever a template shows; the script of the page never makes HTML of texts."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...core.text import bytes_text
from ...figures import colours
from ..jobs import State
from .views import CurveView, JobView, utc

GROUPS: Mapping[str, Sequence[State]] = {
    "all": tuple(State),
    "running": (State.RUNNING,),
    "waiting": (State.QUEUED, State.PAUSED),
    "done": (State.DONE,),
    "failed": (State.FAILED,),
    "left out": (State.STOPPED, State.SKIPPED),
}
"""States behind each button that filters jobs."""

_REQUESTED = {"pause": "pausing", "stop": "stopping", "skip": "skipping"}
_WIDTH, _HEIGHT, _MARGIN = 120.0, 28.0, 2.0  # of a sparkline [its own units]
_COLOURS = ("orange", "sky", "green", "blue", "vermilion", "purple")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _figure, "iso": _iso, "kind": _kind, "lines": sparkline, "size": bytes_text,
        "state_words": _state_words, "utc": utc,
    }  # fmt: skip
    environment.globals["counts_of"] = _counts_of
    return environment


def part(name: str, *arguments: Any) -> str:
    """A part of the page: the macro of a name in `templates/parts.html`."""
    macro = getattr(_environment().get_template("parts.html").module, name)
    return str(macro(*arguments)).strip()


def page(**values: Any) -> str:
    """The whole page.

    Args:
        values: of `templates/page.html`; `rows` and `panels` are parts that are HTML already.
    """
    values["rows"] = [Markup(row) for row in values["rows"]]
    values["panels"] = {name: Markup(html) for name, html in values["panels"].items()}
    return _environment().get_template("page.html").render(values)


def colour_sheet() -> str:
    """The colours of all figures as variables of a style sheet."""
    return f":root {{ {' '.join(f'--{name}: {getattr(colours, name.upper())};' for name in _COLOURS)} }}\n"


def sparkline(curves: Sequence[CurveView]) -> list[str]:
    """Points of a line for each curve, on common axes, as SVG has them."""
    steps = [step for curve in curves for step in curve.steps]
    values = [value for curve in curves for value in curve.values]
    if not values:
        return []
    first, width = min(steps), max(max(steps) - min(steps), 1)
    low, high = min(values), max(values)
    height = high - low if math.isfinite(high - low) and high > low else 1.0

    def point(step: int, value: float) -> str:
        x = (step - first) / width * _WIDTH
        y = _MARGIN + (1 - (value - low) / height) * (_HEIGHT - 2 * _MARGIN)
        return f"{x:.1f},{y:.1f}"

    return [" ".join(map(point, curve.steps, curve.values)) for curve in curves]


def _figure(value: float) -> str:
    return f"{value:.4g}"


def _iso(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return ""


def _kind(job: JobView) -> str:
    """The button that shows a job."""
    return next(name for name, states in GROUPS.items() if name != "all" and job.state in states)


def _counts_of(counts: Mapping[State, int], states: Sequence[State]) -> int:
    return sum(counts.get(state, 0) for state in states)


def _state_words(job: JobView) -> str:
    """The state of a job, or what a person has asked of it."""
    return _REQUESTED[job.request] if job.request and job.state is State.RUNNING else str(job.state)
