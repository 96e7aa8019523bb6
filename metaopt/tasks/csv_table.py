"""Tabular data: predict one column of a CSV file from the other columns."""

import csv
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.config import option
from ..core.errors import TaskDataError
from ..core.registry import suggest
from ..core.text import shown
from .base import Batch, SplitConfig, Task, error_source, hold_out
from .supervised import Classification, Regression

_MIN_ROWS = 10
_CONSTANT_TOLERANCE = 1e-12  # a column is constant if its standard deviation is at most this fraction of |mean|
_MISSING_VALUES = ("", "na", "n/a", "nan", "null", "none")
_EXPECTED_FORMAT = "expected comma-separated values in UTF-8 with column names in the first line"


class CSVTableConfig(SplitConfig):
    """File, label column and splits of a table."""

    data_dir: Path = option(default=Path("data.csv"), help="Path of a CSV file whose first line has the column names.")
    label: str = option(default="label", help="Name of the column to predict.")
    predict: str = option(
        default="classification",
        help="Type of the task: classification, or regression for a numeric label column.",
        choices=("classification", "regression"),
    )
    validation_fraction: float = option(
        default=0.25, help="Fraction of all rows held out for validation.", above=0.0, below=1.0
    )


class CSVTable(Task):
    """Predict one column of a CSV file, a class or a number, from the other columns, which are numeric.

    Features are standardised with the mean and the standard deviation of the training rows. A feature that is constant
    in the training rows becomes 0 in all rows.
    """

    Config = CSVTableConfig
    topology = "mlp"

    def __init__(self, config: CSVTableConfig) -> None:
        table = read_table(config.data_dir, config.label)
        with error_source(config.data_dir):
            if len(table.labels) < _MIN_ROWS:
                raise TaskDataError(f"{len(table.labels)} rows are too few to split; expected {_MIN_ROWS} or more")
            self._task = (_classification if config.predict == "classification" else _regression)(table, config)
        self.kind, self.metric_names, self.splits = self._task.kind, self._task.metric_names, self._task.splits

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Number of features, and number of classes (1 for regression)."""
        return self._task.model_facts

    @property
    def baseline_loss(self) -> float:
        """ln(number of classes), or the variance of the standardised training labels."""
        return self._task.baseline_loss

    def loss(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy [nats], or the mean squared error of the standardised labels."""
        return self._task.loss(outputs, labels)

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy, or the mean absolute error in the unit of the label column."""
        return self._task.metrics(outputs, labels)

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """R² for regression; empty for classification."""
        return self._task.metrics_of_loss(loss)


class Table(NamedTuple):
    """The data rows of a CSV file."""

    features: Float[Tensor, "rows features"]
    labels: list[str]
    lines: list[int]
    """Line number of each row in the file, counted from 1."""


def read_table(path: Path, label: str) -> Table:
    """Read a CSV file in which all columns except the label column are numeric.

    Raises:
        TaskDataError: the file cannot be read or is not a CSV file, column names are not unique, there is no label
            column or no feature column, a line has a wrong number of cells, a value is missing, or a feature is not a
            finite number.
    """
    rows = _rows(path)
    _, header = next(rows, (1, []))
    label_index = _label_index(label, header, path)
    feature_names = header[:label_index] + header[label_index + 1 :]
    values, table = array("d"), Table(torch.empty(0), [], [])
    for line, cells in rows:
        location = f"{path}, line {line}"
        _check_cells(cells, header, location)
        table.labels.append(cells.pop(label_index).strip())
        table.lines.append(line)
        values.extend(_number(cell, name, location) for cell, name in zip(cells, feature_names, strict=True))
    features = torch.tensor(values, dtype=torch.float64).reshape(len(table.labels), len(header) - 1)
    return table._replace(features=features)


def _classification(table: Table, config: CSVTableConfig) -> Task:
    classes = sorted(set(table.labels))
    if len(classes) < 2:
        raise TaskDataError(f"column {shown(config.label)} has {len(classes)} classes; expected two or more")
    if 2 * len(classes) > len(table.labels):
        raise TaskDataError(
            f"column {shown(config.label)} has {len(classes)} classes in {len(table.labels)} rows; expected at "
            "least two rows per class on average. If the labels are numeric, set predict=regression"
        )
    indices = {name: index for index, name in enumerate(classes)}
    train, validation = _split(table, torch.tensor([indices[label] for label in table.labels]), config)
    return Classification(train, validation, len(classes), config)


def _regression(table: Table, config: CSVTableConfig) -> Task:
    rows = zip(table.labels, table.lines, strict=True)
    labels = torch.tensor([_number(label, config.label, f"line {line}") for label, line in rows], dtype=torch.float64)
    train, validation = _split(table, labels, config)
    mean, std = train.labels.mean(), float(train.labels.std(correction=0)) or 1.0
    train, validation = (batch._replace(labels=((batch.labels - mean) / std).float()) for batch in (train, validation))
    return Regression(train, validation, std, config)


def _split(table: Table, labels: Tensor, config: CSVTableConfig) -> tuple[Batch, Batch]:
    """Split the rows into training and validation, and standardise the features with the training statistics."""
    train, validation = hold_out(Batch(table.features, labels), config.validation_fraction, config.split_seed)
    mean, std = train.inputs.mean(0), train.inputs.std(0, correction=0)
    scale = torch.where(std > _CONSTANT_TOLERANCE * mean.abs(), 1 / std, 0.0)
    return (
        train._replace(inputs=((train.inputs - mean) * scale).float()),
        validation._replace(inputs=((validation.inputs - mean) * scale).float()),
    )


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            yield from ((reader.line_num, cells) for cells in reader if cells)
    except OSError as error:
        raise TaskDataError(f"cannot read {path}: {error.strerror}; {_EXPECTED_FORMAT}. Check data_dir") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskDataError(f"{path} is not a valid CSV file ({error}); {_EXPECTED_FORMAT}") from error


def _label_index(label: str, header: Sequence[str], path: Path) -> int:
    if duplicates := {name for name in header if header.count(name) > 1}:
        raise TaskDataError(
            f"{path} has several columns named {shown(sorted(duplicates)[0])}; expected unique column names"
        )
    if len(header) < 2:
        raise TaskDataError(
            f"{path} has {len(header)} columns; expected a label column and at least one feature column, separated by "
            "commas"
        )
    if label not in header:
        raise TaskDataError(f"{path} has no column {shown(label)} for the labels: {suggest(label, header)}")
    return list(header).index(label)


def _check_cells(cells: Sequence[str], header: Sequence[str], location: str) -> None:
    if len(cells) != len(header):
        raise TaskDataError(f"{location}: {len(cells)} cells; expected {len(header)}, one per column. Correct the line")
    for column, cell in zip(header, cells, strict=True):
        if cell.strip().lower() in _MISSING_VALUES:
            raise TaskDataError(
                f"{location}: column {shown(column)} has a missing value ({shown(cell)}). Fill in the value, or "
                "remove the row or the column"
            )


def _number(cell: str, column: str, location: str) -> float:
    try:
        if math.isfinite(value := float(cell)):
            return value
    except ValueError:
        pass
    raise TaskDataError(
        f"{location}: column {shown(column)} contains {shown(cell)}; expected a finite number. Correct the cell, "
        "encode text as numbers, or remove the column"
    )
