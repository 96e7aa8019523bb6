"""Documents in text: sections and tables in Markdown, tables as comma-separated values, and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Table = tuple[list[str], list[list[str]]]
"""Column names, and rows of cells."""


@dataclass(frozen=True)
class Section:
    """A section of a document: paragraphs of Markdown, and tables."""

    title: str
    blocks: tuple[str | Table, ...]
    level: int = 2


def markdown(title: str, introduction: Sequence[str], sections: Iterable[Section]) -> str:
    """A document in Markdown; empty paragraphs are left out.

    Args:
        introduction: paragraphs below the title.
    """
    parts = [f"# {title}", *introduction]
    for section in sections:
        parts.append(f"{'#' * section.level} {section.title}")
        parts += [block if isinstance(block, str) else markdown_table(*block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, cells))} |" for cells in lines)


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as comma-separated values, as pandas reads it: six significant digits, and nothing for None."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return file.getvalue()


def json_text(value: Any) -> str:
    """A value as indented JSON: null for NaN and infinity, which JSON does not have, and text for other objects."""
    return json.dumps(_finite(value), indent=1, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _escaped(cell: str) -> str:
    """A cell that neither ends early nor begins an HTML tag."""
    return cell.replace("|", r"\|").replace("<", "&lt;")
