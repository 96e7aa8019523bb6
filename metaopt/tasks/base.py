"""What a task is: batches, a loss, and metrics that only inform.

Loss is the signal; nothing outside a task asks what kind of task it is.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from math import log
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..configuration import Config, option

Split = Literal["train", "meta", "guard", "validation"]
"""`train` trains targets, `meta` measures losses in meta-training, `guard` decides on nowcasts, `validation` judges."""


class Batch(NamedTuple):
    """Some examples."""

    inputs: Tensor
    labels: Tensor


class Task(ABC):
    """Data + loss + metrics.

    A subclass is final: it names its `Config`, loads its data in `__init__` and defines what is abstract here.
    Splits are disjoint. The same random seed gives the same batches.
    """

    Config: ClassVar[type[Config]]
    splits: dict[Split, Batch]
    """The examples of each split, in memory or memory-mapped."""

    @property
    @abstractmethod
    def model_facts(self) -> Mapping[str, Any]:
        """What a target may need to know of the data (`in_channels`, `image_size`, `classes`)."""

    @property
    @abstractmethod
    def baseline_loss(self) -> float:
        """The loss of the best constant answer."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """The mean loss of a network's outputs."""

    @abstractmethod
    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Further figures by name, each a mean over the examples."""

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch of training batches in an order that depends on the random seed and the epoch alone."""
        inputs, labels = self.splits["train"]
        order = torch.randperm(len(inputs), generator=generator(seed, epoch))
        for rows in order.split(batch_size):
            yield Batch(inputs[rows], labels[rows])

    def sample(self, split: Split, size: int, random: torch.Generator) -> Batch:
        """A random batch of a split, without repetition; the whole split where that is smaller."""
        inputs, labels = self.splits[split]
        rows = torch.randperm(len(inputs), generator=random)[:size]
        return Batch(inputs[rows], labels[rows])

    def digest(self) -> str:
        """Identifies the data and its splits: 32 hexadecimal characters."""
        sha = hashlib.sha256()
        for name, batch in sorted(self.splits.items()):
            for tensor in batch:
                sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
                sha.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()[:32]


class ClassificationConfig(Config):
    """How the examples of a classification task are divided."""

    meta_fraction: float = option(
        default=0.2, help="Share of the training examples held out for meta-training.", above=0.0, below=0.5
    )
    guard_fraction: float = option(
        default=0.1, help="Share of the training examples held out for guards.", above=0.0, below=0.5
    )
    split_seed: int = option(default=0, help="Random seed of the division.", at_least=0)


class Classification(Task):
    """A task that names the class of an input; its loss is cross-entropy [nats]."""

    def __init__(self, train: Batch, validation: Batch, classes: int, config: ClassificationConfig) -> None:
        self.classes = classes
        order = torch.randperm(len(train.inputs), generator=generator(config.split_seed))
        meta, guard = (int(len(order) * share) for share in (config.meta_fraction, config.guard_fraction))
        names: tuple[Split, ...] = ("meta", "guard", "train")
        parts = zip(names, order.split([meta, guard, len(order) - meta - guard]), strict=True)
        self.splits = {"validation": validation}
        for name, rows in parts:
            self.splits[name] = Batch(train.inputs[rows], train.labels[rows])

    @property
    def model_facts(self) -> Mapping[str, Any]:
        """Channels, height (= width) and number of classes."""
        _, channels, size, _ = self.splits["train"].inputs.shape
        return {"in_channels": channels, "image_size": size, "classes": self.classes}

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


def generator(*numbers: int) -> torch.Generator:
    """A random generator that depends on the given numbers alone, and on each of them."""
    text = ",".join(map(str, numbers))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]))
