"""Plain text: numbers with nouns, and aligned columns."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 epoch`, `2 epochs`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of plain text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
