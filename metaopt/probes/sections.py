"""Results of probes as sections and tables of a document."""

from collections.abc import Iterator, Mapping, Sequence

from ..core.documents import Section, Table
from ..core.text import counted
from ..targets.builders import first_line
from .base import Probe, ProbeResult, Row

MOST_ROWS = 40
"""Rows of a table for people [count]; files of tables have all."""


def sections_of(probes: Mapping[str, Probe], results: Mapping[str, ProbeResult], images: bool) -> Iterator[Section]:
    """A section for each result: what was measured, how to read it, the values and a table.

    Args:
        images: whether the figures are beside the document, as `<probe>-<figure>.png`.
    """
    for name, result in results.items():
        rows = result.summary or result.rows
        left = [f"… and {counted(len(rows) - MOST_ROWS, 'more row')}."] if len(rows) > MOST_ROWS else []
        values = [[value, number_text(number)] for value, number in result.values.items()]
        drawn = [f"![{name}: {figure}]({name}-{figure}.png)" for figure in result.figures] if images else []
        table = [_table(rows[:MOST_ROWS])] if rows else []
        probe = probes[name]
        yield Section(
            name, (first_line(type(probe)), probe.how_to_read, (["value", name], values), *drawn, *table, *left)
        )


def table_rows(rows: Sequence[Row]) -> tuple[list[str], list[list[object]]]:
    """Rows as column names and cells, for a file."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    return heads, [[row.get(name) for name in heads] for row in rows]


def number_text(value: object) -> str:
    """A number with four significant digits; – for None."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _table(rows: Sequence[Row]) -> Table:
    heads, cells = table_rows(rows)
    return [head.replace("_", " ") for head in heads], [[number_text(cell) for cell in row] for row in cells]
