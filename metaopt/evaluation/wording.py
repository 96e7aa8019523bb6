"""Figures as text: what tables and sentences of a report are put together from."""

from collections.abc import Sequence

from .statistics import Interval
from .summary import Arrival, ControlResult, Standing

NONE = "–"


def steps(arrival: Arrival) -> str:
    """Steps to target, marked where some never got there."""
    return f"{'≥' if arrival.never else ''}{arrival.counted_steps:.0f}"


def fewer_steps(arrival: Arrival) -> str:
    """How many of hold's steps were not needed."""
    at_least = "at least " if arrival.never and arrival.fewer_steps < 0 else ""
    return f"{at_least}{abs(arrival.fewer_steps):.0f} % {'fewer' if arrival.fewer_steps >= 0 else 'more'}"


def interval(value: Interval) -> str:
    """A mean, with its bounds where it has them."""
    mean, low, high = value
    return f"{mean:.2f}" if low is None or high is None else f"{mean:.2f} ({low:.2f}–{high:.2f})"


def percent(share: float | None) -> str:
    """A share; a dash for none."""
    return NONE if share is None else f"{100 * share:.0f} %"


def number(value: float | None, digits: int = 4) -> str:
    """A figure; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}" if value < 1000 else f"{value:.1e}"


def before_and_after(standing: Standing) -> str:
    """Validation loss around one unguarded prediction."""
    return NONE if standing.after is None else f"{number(standing.before)} → {number(standing.after)}"


def kept(standing: Standing) -> str:
    """How many nowcasts the guard kept."""
    return f"{standing.accepted} of {standing.nowcasts}" if standing.nowcasts else NONE


def said_of(control: ControlResult) -> str:
    """What a control shows."""
    if control.fails is None:
        return "undecided (no gain to lose)"
    return "fails" if control.fails else f"DOES NOT FAIL (keeps {percent(control.kept)} of the gain)"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of plain text, their columns below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])
