"""Supervised tasks on labelled examples: classification and regression."""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import TaskDataError
from .base import Batch, SplitConfig, Task, split_examples

Logits = Float[Tensor, "batch classes"]
ClassLabels = Int[Tensor, " batch"]
Predictions = Float[Tensor, "batch 1"]
Values = Float[Tensor, " batch"]


class Classification(Task):
    """Base class of classification tasks; the loss is the cross-entropy [nats].

    Args:
        train: labelled examples, which are divided into the splits train, meta and guard.
        validation: labelled examples of the validation split.
        classes: number of classes.
        prepare: converts stored inputs into network inputs.
    Raises:
        TaskDataError: a split would be empty.
    """

    kind = "classification"
    topology = "cnn"
    metric_names = ("accuracy",)

    def __init__(
        self,
        train: Batch,
        validation: Batch,
        classes: int,
        config: SplitConfig,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.classes = classes
        self.splits = split_examples(train, validation, config, prepare)

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Number of features and of classes; for images also the channels and the height (= width)."""
        shape = self.splits["train"][:1].inputs.shape[1:]
        facts = {"in_features": shape.numel(), "classes": self.classes}
        return {**facts, "in_channels": shape[0], "image_size": shape[1]} if len(shape) == 3 else facts

    @property
    def baseline_loss(self) -> float:
        """The cross-entropy of equal probabilities: ln(classes)."""
        return log(self.classes)

    def loss(self, outputs: Logits, labels: ClassLabels) -> Float[Tensor, ""]:
        """Mean cross-entropy [nats]."""
        return F.cross_entropy(outputs, labels)

    def metrics(self, outputs: Logits, labels: ClassLabels) -> dict[str, Tensor]:
        """Accuracy [0 to 1]."""
        return {"accuracy": (outputs.argmax(-1) == labels).float().mean()}


class Regression(Task):
    """Base class of tasks that predict a number; the loss is the mean squared error.

    Args:
        train: examples with standardised labels (mean 0, standard deviation 1), which are divided into the splits
            train, meta and guard.
        validation: examples of the validation split, standardised by the same mean and deviation.
        unit: standard deviation of the labels before they were standardised.
    Raises:
        TaskDataError: a split would be empty, or all labels are equal.
    """

    kind = "regression"
    topology = "mlp"
    metric_names = ("mean_absolute_error", "r2")

    def __init__(self, train: Batch, validation: Batch, unit: float, config: SplitConfig) -> None:
        self._unit = unit
        self.splits = split_examples(train, validation, config)
        self._variance = float(self.splits["train"][:].labels.double().var(correction=0))
        if self._variance == 0:
            raise TaskDataError("all training labels are the same number; there is nothing to predict. Check label")

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Number of features, and one output."""
        return {"in_features": self.splits["train"][:1].inputs.shape[1], "classes": 1}

    @property
    def baseline_loss(self) -> float:
        """The loss of predicting the mean of the training labels: their variance."""
        return self._variance

    def loss(self, outputs: Predictions, labels: Values) -> Float[Tensor, ""]:
        """Mean squared error of the standardised labels."""
        return F.mse_loss(outputs.squeeze(-1), labels)

    def metrics(self, outputs: Predictions, labels: Values) -> dict[str, Tensor]:
        """Mean absolute error [unit of the original labels]."""
        return {"mean_absolute_error": self._unit * (outputs.squeeze(-1) - labels).abs().mean()}

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """Coefficient of determination R² = 1 − loss / variance of the training labels."""
        return {"r2": 1 - loss / self._variance}
