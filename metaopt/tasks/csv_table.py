"""Tables in comma-separated files: one column predicted from the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.config import option
from ..core.errors import TaskDataError
from .base import Batch, SplitConfig, Task, held_out, naming
from .classification import Classification
from .regression import Regression
from .table import Table, number, read_table

_FEWEST = 10  # rows
_ROUNDING = 1e-12  # of a mean; a column that deviates less is constant


class CSVTableConfig(SplitConfig):
    """Where the table lies, what is predicted, and how the rows are divided."""

    data_dir: Path = option(default=Path("data.csv"), help="A .csv file; its first line names the columns.")
    label: str = option(default="label", help="The column to predict from the others.")
    predict: str = option(
        default="classification",
        help="Whether labels are classes or numbers.",
        choices=("classification", "regression"),
    )
    validation_fraction: float = option(default=0.25, help="Share of all rows that only judge.", above=0.0, below=1.0)


class CSVTable(Task):
    """Predict a column of a table from the others: the class that it names, or the number that it holds.

    The other columns are brought to a mean of 0 and a deviation of 1 over the training rows; a constant one becomes 0.
    """

    Config = CSVTableConfig
    topology = "mlp"

    def __init__(self, config: CSVTableConfig) -> None:
        table = read_table(config.data_dir, config.label)
        with naming(config.data_dir):
            if len(table.labels) < _FEWEST:
                raise TaskDataError(f"{len(table.labels)} rows are too few to divide; expected {_FEWEST} or more")
            self._inner = (_classes if config.predict == "classification" else _numbers)(table, config)
        self.kind, self.metric_names, self.splits = self._inner.kind, self._inner.metric_names, self._inner.splits

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Numbers per row, and of classes (1 for a regression)."""
        return self._inner.model_facts

    @property
    def baseline_loss(self) -> float:
        """That of the classification or regression behind it."""
        return self._inner.baseline_loss

    def loss(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """Cross-entropy [nats], or the mean squared error of standardised labels."""
        return self._inner.loss(outputs, labels)

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy, or the mean absolute error."""
        return self._inner.metrics(outputs, labels)

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """R² of a regression."""
        return self._inner.metrics_of_loss(loss)


def _classes(table: Table, config: CSVTableConfig) -> Task:
    names = sorted(set(table.labels))
    if len(names) < 2:
        raise TaskDataError(f"column {config.label!r} names {len(names)} classes; expected two or more")
    if 2 * len(names) > len(table.labels):
        raise TaskDataError(
            f"column {config.label!r} names {len(names)} classes in {len(table.labels)} rows, too few of each to "
            "learn. If it holds numbers, give predict=regression"
        )
    numbers = {name: place for place, name in enumerate(names)}
    train, validation = _divided(table, torch.tensor([numbers[label] for label in table.labels]), config)
    return Classification(train, validation, len(names), config)


def _numbers(table: Table, config: CSVTableConfig) -> Task:
    places = zip(table.labels, table.lines, strict=True)
    labels = torch.tensor([number(label, config.label, f"line {line}") for label, line in places], dtype=torch.float64)
    train, validation = _divided(table, labels, config)
    mean, unit = train.labels.mean(), float(train.labels.std(correction=0)) or 1.0
    train, validation = (part._replace(labels=((part.labels - mean) / unit).float()) for part in (train, validation))
    return Regression(train, validation, unit, config)


def _divided(table: Table, labels: Tensor, config: CSVTableConfig) -> tuple[Batch, Batch]:
    """Rows that train and rows that judge, their features standardised by those that train."""
    train, validation = held_out(Batch(table.features, labels), config.validation_fraction, config.split_seed)
    mean, std = train.inputs.mean(0), train.inputs.std(0, correction=0)
    scale = torch.where(std > _ROUNDING * mean.abs(), 1 / std, 0.0)
    return (
        train._replace(inputs=((train.inputs - mean) * scale).float()),
        validation._replace(inputs=((validation.inputs - mean) * scale).float()),
    )
