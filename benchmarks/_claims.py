"""Claims: what is measured, what is expected, and what came out, as one table of a command."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import click

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


def each_at_least(claim: str, goal: float, figures: Sequence[float], notes: str = "") -> Row:
    """A claim about each random seed, where a mean would hide those that miss the goal."""
    count = sum(figure >= goal for figure in figures)
    some = f"reached by {count} of {len(figures)}" if count else "missed"
    return Row(claim, f"≥ {goal} each", figures, "reached" if count == len(figures) else some, notes)


def between(claim: str, bounds: tuple[float, float], figures: Sequence[float], notes: str = "") -> Row:
    """A claim that holds if the mean over random seeds is within bounds."""
    low, high = bounds
    holds = low <= fmean(figures) <= high
    return Row(claim, f"{low} to {high}", figures, "reached" if holds else "missed", notes)


def chosen(only: str, claims: Mapping[str, object]) -> list[str]:
    """The names of an option such as `--only a,b`.

    Raises:
        click.BadParameter: there is no such claim.
    """
    names = only.split(",")
    if unknown := [name for name in names if name not in claims]:
        raise click.BadParameter(f"no claim {', '.join(unknown)}; expected some of {', '.join(claims)}")
    return names


def measure_and_publish(title: str, claims: Sequence[Callable[[], list[Row]]], output: Path, *, quick: bool) -> None:
    """Measure claims one by one, print their table, and write claims.json and claims.md after each.

    Args:
        claims: what measures the rows of each.
        output: an existing folder.
        quick: whether the measurements are too short to judge anything.
    """
    rows = list[Row]()
    title += ", quick: too short to judge anything" if quick else ""
    for measure in claims:
        for row in measure():
            rows.append(row._replace(result="not judged") if quick and row.figures else row)
            click.echo(f"{row.claim}: {row.measured} {row.goal and f'({row.goal}) '}{rows[-1].result}", err=True)
        plain = [{**row._asdict(), "figures": list(row.figures), "measured": row.measured} for row in rows]
        (output / "claims.json").write_text(json.dumps({"title": title, "rows": plain}, indent=1) + "\n", "utf-8")
        (output / "claims.md").write_text(as_markdown(rows, title), "utf-8")
    click.echo(as_markdown(rows, title))


def as_markdown(rows: Sequence[Row], title: str) -> str:
    """The table of all claims."""
    cells = [(row.claim, row.goal, row.measured, row.result, row.notes) for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in (_HEADS, ("---",) * len(_HEADS), *cells)]
    return f"# {title}\n\n" + "\n".join(lines) + "\n"
