"""Naming the class of an input."""

from collections.abc import Callable, Mapping
from math import log
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, SplitConfig, Task, divided


class Classification(Task):
    """A task that names the class of an input; its loss is cross-entropy [nats].

    Args:
        train: examples that are divided into the splits train, meta and guard.
        validation: examples that judge.
        prepare: turns stored inputs into those of a network.
    Raises:
        TaskDataError: there are too few examples for each split to have one.
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
        self.splits = divided(train, validation, config, prepare)

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Numbers per example and number of classes; of images, also channels and height (= width)."""
        shape = self.splits["train"][:1].inputs.shape[1:]
        facts = {"in_features": shape.numel(), "classes": self.classes}
        return {**facts, "in_channels": shape[0], "image_size": shape[1]} if len(shape) == 3 else facts

    @property
    def baseline_loss(self) -> float:
        """Every class equally likely: ln(classes)."""
        return log(self.classes)

    def loss(self, outputs: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Mean cross-entropy [nats]."""
        return F.cross_entropy(outputs, labels)

    def metrics(self, outputs: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """Accuracy [0 to 1]."""
        return {"accuracy": (outputs.argmax(-1) == labels).float().mean()}
