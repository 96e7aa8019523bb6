"""What a task is: batches, a loss, and metrics that only inform.

Loss is the signal; nothing outside a task asks what kind of task it is.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import vmap

from ..core.config import Config, option
from ..core.errors import TaskDataError
from ..core.rng import generator

Split = Literal["train", "meta", "guard", "validation"]
"""`train` trains targets, `meta` measures losses in meta-training, `guard` decides on nowcasts, `validation` judges."""

Kind = Literal["classification", "language model", "regression"]
Topology = Literal["cnn", "transformer", "mlp"]

_HASHED_AT_ONCE = 4096  # examples; bounds memory


class Batch(NamedTuple):
    """Some examples."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Self:
        """The same examples on a device."""
        return self._replace(inputs=self.inputs.to(device), labels=self.labels.to(device))


class Examples:
    """The examples of a split. They may stay on disk; what a batch needs is read and made ready for a network.

    Args:
        inputs, labels: one row per example, in memory or memory-mapped; splits may share them.
        rows: which rows belong to the split; all unless given.
        prepare: turns stored inputs into those of a network (bytes of an image into standardised numbers).
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        rows: Int[Tensor, " examples"] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._stored = Batch(inputs, labels)
        self._rows = torch.arange(len(inputs)) if rows is None else rows
        self._prepare = prepare

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: slice | Tensor) -> Batch:
        """Some of the examples, by their numbers within the split."""
        inputs, labels = self._raw(which)
        return Batch(self._prepare(inputs) if self._prepare else inputs, labels)

    def in_order(self, size: int) -> Iterator[Batch]:
        """All examples, in batches of at most some size."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def update(self, sha: "hashlib._Hash") -> None:
        """Feed the stored examples to a digest."""
        for which, tensor in enumerate(self._stored):
            sha.update(f"{tensor.dtype}{(len(self), *tensor.shape[1:])}".encode())
            for start in range(0, len(self), _HASHED_AT_ONCE):
                piece = self._raw(slice(start, start + _HASHED_AT_ONCE))[which]
                sha.update(piece.contiguous().view(-1).view(torch.uint8).numpy().data)

    def _raw(self, which: slice | Tensor) -> Batch:
        rows = self._rows[which]
        return Batch(self._stored.inputs[rows], self._stored.labels[rows])


@dataclass(frozen=True)
class TaskConfig:
    """What can be known of a task beside its data; phase 1 keeps it with each trajectory.

    Args:
        kind: what is learned.
        topology: the kind of network that suits the data.
        baseline_loss: the loss of the best constant answer.
        target_loss: the loss at which a training counts as done.
        metrics: names of the figures beside the loss.
        loss_change_std: typical size of the change of the training loss from one step to the next: its standard
            deviation, as phase 1 measured it; None before that.
    """

    kind: Kind
    topology: Topology
    baseline_loss: float
    target_loss: float
    metrics: tuple[str, ...]
    loss_change_std: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "metrics": list(self.metrics)}


class Task(ABC):
    """Data + loss + metrics.

    A subclass is final: it names its `Config`, loads its data in `__init__` and defines what is abstract here.
    Splits are disjoint. The same random seed gives the same batches.
    """

    Config: ClassVar[type[Config]]
    kind: Kind
    topology: Topology
    metric_names: tuple[str, ...] = ()
    """The figures beside the loss: those of `metrics` and of `metrics_of_loss`."""
    target_share: ClassVar[float] = 0.1
    """The target loss as a share of the baseline loss."""
    rows_at_once: int = 500
    """Examples in one forward pass of a measurement; bounds memory."""
    splits: dict[Split, Examples]

    @property
    @abstractmethod
    def model_facts(self) -> Mapping[str, Any]:
        """What a target may need to know of the data.

        Images: `in_features`, `in_channels`, `image_size`, `classes`. Tables: `in_features`, `classes` (1 for a
        regression). Text: `vocab_size`, `block_size`.
        """

    @property
    @abstractmethod
    def baseline_loss(self) -> float:
        """The loss of the best constant answer."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """The mean loss of a network's outputs."""

    def losses(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " examples"]:
        """The loss of each example."""
        return vmap(lambda output, label: self.loss(output.unsqueeze(0), label.unsqueeze(0)))(outputs, labels)

    @abstractmethod
    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Further figures by name, each a mean over the examples."""

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """Further figures that follow from the mean loss over a split, such as perplexity."""
        return {}

    def describe(self) -> TaskConfig:
        """What can be known of the task before any training."""
        return TaskConfig(
            kind=self.kind,
            topology=self.topology,
            baseline_loss=self.baseline_loss,
            target_loss=self.target_share * self.baseline_loss,
            metrics=self.metric_names,
        )

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """One epoch of training batches in an order that depends on the random seed and the epoch alone."""
        examples = self.splits["train"]
        order = torch.randperm(len(examples), generator=generator(seed, epoch))
        for rows in order.split(batch_size):
            yield examples[rows]

    def sample(self, split: Split, size: int, random: torch.Generator) -> Batch:
        """A random batch of a split, without repetition; the whole split where that is smaller."""
        examples = self.splits[split]
        return examples[torch.randperm(len(examples), generator=random)[:size]]

    def digest(self) -> str:
        """Identifies the data and its splits: 32 hexadecimal characters."""
        sha = hashlib.sha256()
        for name, examples in sorted(self.splits.items()):
            sha.update(name.encode())
            examples.update(sha)
        return sha.hexdigest()[:32]


class ShareConfig(Config):
    """How large the parts of the training examples are."""

    meta_fraction: float = option(
        default=0.2, help="Share of the training examples held out for meta-training.", above=0.0, below=0.5
    )
    guard_fraction: float = option(
        default=0.1, help="Share of the training examples held out for guards.", above=0.0, below=0.5
    )


class SplitConfig(ShareConfig):
    """How the training examples are divided at random."""

    split_seed: int = option(default=0, help="Random seed of the division.", at_least=0)


def held_out(examples: Batch, fraction: float, seed: int) -> tuple[Batch, Batch]:
    """Divide examples at random, where the data itself does not: those that train, and a share that only judges."""
    order = torch.randperm(len(examples.inputs), generator=generator(seed))
    judged, rest = order.split([(count := int(len(order) * fraction)), len(order) - count])
    return Batch(*(tensor[rest] for tensor in examples)), Batch(*(tensor[judged] for tensor in examples))


def divided(
    train: Batch,
    validation: Batch,
    config: SplitConfig,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> dict[Split, Examples]:
    """The four splits, of which three share the training examples at random.

    Args:
        prepare: turns stored inputs into those of a network.
    Raises:
        TaskDataError: there are too few examples for each split to have one.
    """
    order = torch.randperm(len(train.inputs), generator=generator(config.split_seed))
    meta, guard = (int(len(order) * share) for share in (config.meta_fraction, config.guard_fraction))
    parts = order.split([meta, guard, len(order) - meta - guard])
    if any(len(part) == 0 for part in (*parts, validation.inputs)):
        raise TaskDataError(
            f"{len(order)} training and {len(validation.inputs)} validation examples are too few to divide: each of "
            "train, meta, guard and validation needs one. Give more data, or larger fractions"
        )
    names: tuple[Split, ...] = ("meta", "guard", "train")
    splits = {name: Examples(*train, rows, prepare) for name, rows in zip(names, parts, strict=True)}
    return {**splits, "validation": Examples(*validation, prepare=prepare)}


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Say of data that turns out to be unfit where it came from.

    Raises:
        TaskDataError: the same, beginning with the source.
    """
    try:
        yield
    except TaskDataError as error:
        raise TaskDataError(f"{source}: {error}") from error
