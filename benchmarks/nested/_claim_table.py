"""A table of claims: what is measured, what is expected, and what came out."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

_HEADS = ("claim", "goal", "measured", "result", "notes")


class Row(NamedTuple):
    """One claim.

    Attributes:
        claim, goal: what is measured, and what is expected; no goal for figures that are only printed.
        figures: one per random seed; none if it was not measured.
        result: such as "reached".
        notes: what a reader must know of the measurement.
    """

    claim: str
    goal: str
    figures: Sequence[float]
    result: str
    notes: str = ""

    @property
    def measured(self) -> str:
        """Mean ± standard deviation over random seeds."""
        if not self.figures:
            return "–"
        spread = stdev(self.figures) if len(self.figures) > 1 else 0.0
        return f"{fmean(self.figures):.3g} ± {spread:.2g}"


def at_most(claim: str, goal: float, figures: Sequence[float], notes: str = "") -> Row:
    """A claim that holds if the mean over random seeds is not larger than its goal."""
    return Row(claim, f"≤ {goal}", figures, "reached" if fmean(figures) <= goal else "missed", notes)


def at_least(claim: str, goal: float, figures: Sequence[float], notes: str = "") -> Row:
    """A claim that holds if the mean over random seeds is not smaller than its goal."""
    return Row(claim, f"≥ {goal}", figures, "reached" if fmean(figures) >= goal else "missed", notes)


def as_markdown(rows: Sequence[Row], title: str) -> str:
    """The table of all claims."""
    cells = [(row.claim, row.goal, row.measured, row.result, row.notes) for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in (_HEADS, ("---",) * len(_HEADS), *cells)]
    return f"# {title}\n\n" + "\n".join(lines) + "\n"
