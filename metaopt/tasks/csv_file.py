"""Reading a CSV file of numbers and labels: every cell is read exactly, or refused with its line and column."""

import csv
import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NamedTuple, TextIO

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import TaskDataError
from ..core.registry import suggest
from ..core.text import shown
from .data_files import open_text

_MISSING_VALUES = ("", "na", "n/a", "nan", "null", "none")
_WHOLE = re.compile(r"\s*[+-]?(\d+)(\.0*)?\s*")
_UNNAMED = re.compile(r"|unnamed: \d+(\.\d+)?", re.IGNORECASE)  # "Unnamed: 0" is pandas's name for a column without one
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_EXPECTED = "comma-separated values in UTF-8 with column names in the first line"


class Table(NamedTuple):
    """The data rows of a CSV file."""

    features: Float[Tensor, "rows features"]
    names: list[str]
    """Name of each feature."""
    labels: list[str]
    """Spaces are removed at both ends, and several in a row become one."""
    lines: list[int]
    """Line number of each row in the file, counted from 1."""
    notes: list[str]
    """What was dropped, a line each."""


def read_table(path: Path, label: str) -> Table:
    """Read a CSV file in which all columns except the label column are numeric.

    A column without a name that numbers the rows is dropped: it is the index that pandas writes, and reveals the label
    if the rows are sorted.

    Raises:
        TaskDataError: the file cannot be read or is not a CSV file, column names are missing or not unique, there is
            no label column or no feature column, a line has a wrong number of cells, a value is missing, or a feature
            is not a finite number that float64 holds.
    """
    rows = _rows(path)
    _, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    label_index = _label_index(label, header, path)
    names = header[:label_index] + header[label_index + 1 :]
    values, labels, lines = array("d"), list[str](), list[int]()
    for line, cells in rows:
        location = f"{path}, line {line}"
        _check_cells(cells, header, location)
        labels.append(" ".join(cells.pop(label_index).split()))
        lines.append(line)
        values.extend(number(cell, name, location) for cell, name in zip(cells, names, strict=True))
    features = torch.tensor(values, dtype=torch.float64).reshape(len(labels), len(names))
    return _without_index(Table(features, names, labels, lines, []), path)


def number(cell: str, column: str, location: str) -> float:
    """A cell as a number.

    Raises:
        TaskDataError: it is no finite number, or a whole number whose digits float64 does not hold.
    """
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in cell:
        raise TaskDataError(
            f"{location}: column {shown(column)} contains {shown(cell)}; expected a finite number. Correct the cell, "
            "encode text as numbers, or remove the column"
        )
    if abs(value) >= 2**53 and (whole := _WHOLE.fullmatch(cell)) and int(whole[1]) != abs(int(value)):
        raise TaskDataError(
            f"{location}: column {shown(column)} contains {shown(cell)}, of which float64 keeps 53 bits; values that "
            "differ would become equal. Subtract an offset, or remove the column if it is an identifier"
        )
    return value


def classes_of(labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """The sorted names of the classes, and the index of each label's class. `0`, `0.0` and `00` are one class.

    Returns: the names, of which each is the shortest text of its class; the indices.
    """
    texts = sorted(set(labels), key=lambda text: (len(text), text))
    names: dict[Decimal | str, str] = {}
    for text in texts:
        names.setdefault(_exact(text), text)
    classes = sorted(names.values())
    indices = {name: index for index, name in enumerate(classes)}
    index_of = {text: indices[names[_exact(text)]] for text in texts}
    return classes, [index_of[label] for label in labels]


def label_notes(labels: Sequence[str]) -> list[str]:
    """What a user must know of texts that look like one label, a line each."""
    by_number, by_case = defaultdict[Decimal, list[str]](list), defaultdict[str, list[str]](list)
    for text in sorted(set(labels)):
        if isinstance(exact := _exact(text), Decimal):
            by_number[exact].append(text)
        else:
            by_case[text.casefold()].append(text)
    kinds = {
        "are the same number are one class": by_number.values(),
        "differ only in upper and lower case are different classes": by_case.values(),
    }
    notes = []
    for reason, groups in kinds.items():
        several = ["/".join(map(shown, texts[:4])) for texts in groups if len(texts) > 1]
        more = f" and {len(several) - 5} more" if len(several) > 5 else ""
        notes += [f"labels that {reason}: {', '.join(several[:5])}{more}"] if several else []
    return notes


def _exact(label: str) -> Decimal | str:
    """The number that a label is, or its text."""
    try:
        value = Decimal(label)
    except InvalidOperation:
        return label
    return value if value.is_finite() and "_" not in label else label


def _without_index(table: Table, path: Path) -> Table:
    """The table without the columns that have no name and number the rows."""
    dropped = [index for index, name in enumerate(table.names) if _UNNAMED.fullmatch(name)]
    for index in dropped:
        if not _numbers_rows(table.features[:, index]):
            raise TaskDataError(f"{path}: column {index + 1} has no name; name it in the first line, or remove it")
    kept = [index for index in range(len(table.names)) if index not in dropped]
    if not kept:
        raise TaskDataError(f"{path} has no feature column besides one that numbers the rows; add one")
    notes = [f"{path}: ignored the column {table.names[index]!r}, which numbers the rows" for index in dropped]
    notes += [
        f"{path}: the column {table.names[index]!r} numbers the rows; remove it if that is no feature"
        for index in kept
        if _is_running(table.features[:, index])
    ]
    return table._replace(features=table.features[:, kept], names=[table.names[index] for index in kept], notes=notes)


def _numbers_rows(values: Float[Tensor, " rows"]) -> bool:
    """Whether the values are different whole numbers, as those of an index, also of one of which rows were removed."""
    return bool((values == values.round()).all()) and len(values.unique()) == len(values)


def _is_running(values: Float[Tensor, " rows"]) -> bool:
    """Whether each value is that of the row before, plus one."""
    return len(values) > 1 and bool((values.diff() == 1).all())


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each line that is not empty."""
    try:
        with open_text(path, _EXPECTED) as file:
            reader = csv.reader(_checked(file), strict=True)
            yield from ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    except OSError as error:
        raise TaskDataError(f"cannot read {path}: {error.strerror}; expected {_EXPECTED}. Check data_dir") from error
    except (UnicodeError, csv.Error) as error:
        raise TaskDataError(f"{path} is not a valid CSV file ({error}); expected {_EXPECTED}") from error


def _checked(file: TextIO) -> Iterator[str]:
    """The lines of a file; those with a NUL byte are an error."""
    for line, text in enumerate(file, 1):
        if "\0" in text:
            raise csv.Error(f"line {line} contains a NUL byte: it is no text, or UTF-16 without a byte order mark")
        yield text


def _label_index(label: str, header: Sequence[str], path: Path) -> int:
    named = [name for name in header if not _UNNAMED.fullmatch(name)]
    if duplicates := {name for name in named if named.count(name) > 1}:
        raise TaskDataError(f"{path} has several columns named {sorted(duplicates)[0]!r}; expected unique column names")
    if len(header) < 2:
        found = [f"its first line has {name}" for mark, name in _OTHER_DELIMITERS.items() if mark in "".join(header)]
        raise TaskDataError(
            f"{path} has {len(header)} columns; expected a label column and at least one feature column, separated by "
            f"commas{''.join(f' ({each})' for each in found)}"
        )
    if label not in header:
        raise TaskDataError(f"{path} has no column {shown(label)} for the labels: {suggest(label, named)}")
    return list(header).index(label)


def _check_cells(cells: Sequence[str], header: Sequence[str], location: str) -> None:
    if len(cells) != len(header):
        raise TaskDataError(f"{location}: {len(cells)} cells; expected {len(header)}, one per column. Correct the line")
    for column, cell in zip(header, cells, strict=True):
        if cell.strip().lower() in _MISSING_VALUES:
            raise TaskDataError(
                f"{location}: column {shown(column)} has a missing value ({shown(cell)}). Fill in the value, or remove "
                "the row or the column"
            )
