"""Comma-separated files: one column of labels among columns of numbers."""

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import TaskDataError
from ..core.registry import suggest

_MISSING = ("", "na", "n/a", "nan", "null", "none")
_EXPECTED = "expected comma-separated values in UTF-8, with the names of the columns in the first line"


class Table(NamedTuple):
    """The contents of a file; labels as they stand there."""

    features: Float[Tensor, "rows features"]
    labels: list[str]
    lines: list[int]
    """Where each row stands in the file, counted from 1."""


def read_table(path: Path, label: str) -> Table:
    """Read a file whose columns, apart from that of the labels, hold numbers.

    Raises:
        TaskDataError: the file is missing or no table, has no such column, or a cell is missing or no number; the
            message names column, line and value.
    """
    rows = _rows(path)
    _, header = next(rows, (1, []))
    place = _place_of(label, header, path)
    numbers, table = array("d"), Table(torch.empty(0), [], [])
    for line, cells in rows:
        _check(cells, header, f"{path}, line {line}")
        table.labels.append(cells.pop(place).strip())
        table.lines.append(line)
        columns = header[:place] + header[place + 1 :]
        numbers.extend(number(*cell, f"{path}, line {line}") for cell in zip(cells, columns, strict=True))
    features = torch.tensor(numbers, dtype=torch.float64).reshape(len(table.labels), len(header) - 1)
    return table._replace(features=features)


def number(cell: str, column: str, where: str) -> float:
    """The number in a cell.

    Raises:
        TaskDataError: there is none, or it is not finite.
    """
    try:
        if math.isfinite(value := float(cell)):
            return value
    except ValueError:
        pass
    raise TaskDataError(
        f"{where}: column {column!r} holds {cell!r}; expected a finite number. Mend the cell, write "
        "text as numbers, or remove the column"
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, each with its number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            yield from ((reader.line_num, cells) for cells in reader if cells)
    except OSError as error:
        raise TaskDataError(f"cannot read {path}: {error.strerror}; {_EXPECTED}. Check data_dir") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskDataError(f"{path} is no table ({error}); {_EXPECTED}") from error


def _place_of(label: str, header: Sequence[str], path: Path) -> int:
    if repeated := {name for name in header if header.count(name) > 1}:
        raise TaskDataError(f"{path} has several columns {sorted(repeated)[0]!r}; {_EXPECTED}, each once")
    if len(header) < 2:
        raise TaskDataError(
            f"{path} has {len(header)} columns; {_EXPECTED}: one of labels, and others to predict them from"
        )
    if label not in header:
        raise TaskDataError(f"{path} has no column {label!r} for the labels: {suggest(label, header)}")
    return list(header).index(label)


def _check(cells: Sequence[str], header: Sequence[str], where: str) -> None:
    if len(cells) != len(header):
        raise TaskDataError(f"{where}: {len(cells)} cells; expected {len(header)}, one for each column. Mend the line")
    for column, cell in zip(header, cells, strict=True):
        if cell.strip().lower() in _MISSING:
            raise TaskDataError(
                f"{where}: column {column!r} has a missing value ({cell!r}). Fill it in, or remove "
                "the row or the column"
            )
