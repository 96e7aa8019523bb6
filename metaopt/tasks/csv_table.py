"""Tabular data: predict one column of a CSV file from the other columns."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.config import option
from ..core.errors import TaskDataError
from ..core.text import shown
from .base import Batch, SplitConfig, Task, error_source, hold_out
from .csv_file import Table, classes_of, label_notes, number, read_table
from .data_files import report
from .supervised import Classification, Regression

_MIN_ROWS = 10
_CONSTANT_TOLERANCE = 1e-12  # a column is constant if its standard deviation is at most this fraction of |mean|
_LARGEST_DEVIATION = 1e30  # of labels; errors in their unit are float32


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
        notes = label_notes(table.labels) if config.predict == "classification" else []
        self.notes = report([*table.notes, *(f"{config.data_dir}: {note}" for note in notes)])
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


def _classification(table: Table, config: CSVTableConfig) -> Task:
    classes, indices = classes_of(table.labels)
    if len(classes) < 2:
        raise TaskDataError(f"column {shown(config.label)} has {len(classes)} classes; expected two or more")
    if 2 * len(classes) > len(table.labels):
        raise TaskDataError(
            f"column {shown(config.label)} has {len(classes)} classes in {len(table.labels)} rows; expected at "
            "least two rows per class on average. If the labels are numeric, set predict=regression"
        )
    train, validation = _split(table, torch.tensor(indices), config)
    return Classification(train, validation, len(classes), config)


def _regression(table: Table, config: CSVTableConfig) -> Task:
    rows = zip(table.labels, table.lines, strict=True)
    labels = torch.tensor([number(label, config.label, f"line {line}") for label, line in rows], dtype=torch.float64)
    train, validation = _split(table, labels, config)
    mean, std, unit = _statistics(train.labels)
    deviation = float(unit * std) or 1.0
    if not 1 / _LARGEST_DEVIATION < deviation < _LARGEST_DEVIATION:
        raise TaskDataError(
            f"column {shown(config.label)} has a standard deviation of {deviation:g}, in which float32 cannot hold an "
            "error; scale the column"
        )
    train, validation = (
        batch._replace(labels=_standardised(batch.labels, mean, std or 1.0, unit, [config.label]))
        for batch in (train, validation)
    )
    return Regression(train, validation, deviation, config)


def _split(table: Table, labels: Tensor, config: CSVTableConfig) -> tuple[Batch, Batch]:
    """Split the rows into training and validation, and standardise the features with the training statistics."""
    train, validation = hold_out(Batch(table.features, labels), config.validation_fraction, config.split_seed)
    mean, std, unit = _statistics(train.inputs)
    deviation = torch.where(std > _CONSTANT_TOLERANCE * mean.abs(), std, math.inf)
    return (
        train._replace(inputs=_standardised(train.inputs, mean, deviation, unit, table.names)),
        validation._replace(inputs=_standardised(validation.inputs, mean, deviation, unit, table.names)),
    )


def _statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of each column in a unit of its own, and that unit.

    The unit is the power of two at or below the largest value. So the square of 1e300 does not overflow, that of
    1e-300 does not vanish, and no bit of usual values changes.
    """
    exponent = torch.frexp(values.abs().amax(0)).exponent - 1
    unit = torch.as_tensor(np.ldexp(1.0, exponent.numpy()))  # torch.ldexp would compute in float32
    scaled = values / unit
    return scaled.mean(0), scaled.std(0, correction=0), unit


def _standardised(values: Tensor, mean: Tensor, std: Tensor | float, unit: Tensor, names: Sequence[str]) -> Tensor:
    """Values with mean 0 and standard deviation 1 in the training rows, as float32.

    Raises:
        TaskDataError: a value is so far from those of the training rows that float32 does not hold it.
    """
    result = ((values / unit - mean) * (1 / torch.as_tensor(std))).float()
    if not (finite := result.isfinite()).all():
        row, column = (*map(int, (~finite).nonzero()[0]), 0)[:2]
        value = float(values.reshape(len(values), -1)[row, column])
        raise TaskDataError(
            f"column {shown(names[column])} contains {value:g}, which is too far from the other values to be "
            "standardised in float32. Correct or remove the row"
        )
    return result
