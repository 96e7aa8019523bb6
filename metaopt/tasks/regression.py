"""Predicting a number."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import TaskDataError
from .base import Batch, SplitConfig, Task, divided

Predicted = Float[Tensor, "batch 1"]
Truth = Float[Tensor, " batch"]


class Regression(Task):
    """A task that predicts a number from a row of numbers; its loss is the mean squared error.

    Args:
        train: examples that are divided into the splits train, meta and guard; labels around 0, with a deviation of 1.
        validation: examples that judge.
        unit: what a label of 1 means, in the unit that the user knows.
    Raises:
        TaskDataError: there are too few examples for each split to have one, or all labels are equal.
    """

    kind = "regression"
    topology = "mlp"
    metric_names = ("mean_absolute_error", "r2")

    def __init__(self, train: Batch, validation: Batch, unit: float, config: SplitConfig) -> None:
        self._unit = unit
        self.splits = divided(train, validation, config)
        self._variance = float(self.splits["train"][:].labels.double().var(correction=0))
        if self._variance == 0:
            raise TaskDataError("all training labels are the same number; there is nothing to predict. Check label")

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Numbers per row, and one output."""
        return {"in_features": self.splits["train"][:1].inputs.shape[1], "classes": 1}

    @property
    def baseline_loss(self) -> float:
        """Always the mean of the training labels: their variance."""
        return self._variance

    def loss(self, outputs: Predicted, labels: Truth) -> Float[Tensor, ""]:
        """Mean squared error, of labels that were standardised."""
        return F.mse_loss(outputs.squeeze(-1), labels)

    def metrics(self, outputs: Predicted, labels: Truth) -> dict[str, Tensor]:
        """Mean absolute error [the labels' own unit]."""
        return {"mean_absolute_error": self._unit * (outputs.squeeze(-1) - labels).abs().mean()}

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """R²: the share of the training labels' variance that is explained; 0 for a constant, 1 at best."""
        return {"r2": 1 - loss / self._variance}
