"""Tasks: training data in four splits, a loss to minimise, and metrics to report.

Code outside a task uses its loss and its metrics and never branches on its kind.
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
from ..core.devices import move
from ..core.errors import TaskDataError
from ..core.rng import generator

Split = Literal["train", "meta", "guard", "validation"]
"""`train` trains targets, `meta` gives the losses of meta-training, `guard` decides on nowcasts, and `validation` gives
the reported figures."""

Kind = Literal["classification", "language model", "regression"]
Topology = Literal["cnn", "transformer", "mlp"]

_HASHED_AT_ONCE = 4096  # examples; bounds memory


class Batch(NamedTuple):
    """Inputs and labels of some examples; one row per example."""

    inputs: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        return self._replace(inputs=move(self.inputs, device), labels=move(self.labels, device))


class Examples:
    """The examples of a split. They may stay on disk: indexing reads and preprocesses only the rows of a batch.

    Args:
        inputs, labels: one row per example, in memory or memory-mapped; several splits may share them.
        rows: the rows that belong to the split; all by default.
        prepare: converts stored inputs into network inputs, such as uint8 pixels into standardised floats.
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
        """A batch of the examples with these indices within the split."""
        inputs, labels = self._raw(which)
        return Batch(self._prepare(inputs) if self._prepare else inputs, labels)

    def in_order(self, size: int) -> Iterator[Batch]:
        """All examples in order, in batches of at most `size`."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def update(self, sha: "hashlib._Hash") -> None:
        """Add the stored examples to a digest."""
        for part, tensor in enumerate(self._stored):
            sha.update(f"{tensor.dtype}{(len(self), *tensor.shape[1:])}".encode())
            for start in range(0, len(self), _HASHED_AT_ONCE):
                chunk = self._raw(slice(start, start + _HASHED_AT_ONCE))[part]
                sha.update(chunk.contiguous().view(-1).view(torch.uint8).numpy().data)

    def _raw(self, which: slice | Tensor) -> Batch:
        rows = self._rows[which]
        return Batch(self._stored.inputs[rows], self._stored.labels[rows])


@dataclass(frozen=True)
class TaskConfig:
    """A description of a task without its data; phase 1 stores it with each trajectory.

    Args:
        kind: classification, regression or language model.
        topology: the kind of network that suits the data.
        baseline_loss: the loss of the best constant prediction.
        target_loss: the loss at which a training run counts as converged.
        metrics: names of the metrics besides the loss.
        loss_change_std: standard deviation of the change of the training loss from one step to the next, measured in
            phase 1; None before that.
        notes: what was ignored or converted in the data, a line each.
    """

    kind: Kind
    topology: Topology
    baseline_loss: float
    target_loss: float
    metrics: tuple[str, ...]
    loss_change_std: float | None = None
    notes: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "metrics": list(self.metrics), "notes": list(self.notes)}


class Task(ABC):
    """Base class of tasks: data in splits, a loss, and metrics.

    A subclass is final. It names its `Config`, fills `splits` in `__init__` and defines the abstract members. The
    splits are disjoint. Equal configurations give equal splits; equal random seeds give equal batches.
    """

    Config: ClassVar[type[Config]]
    kind: Kind
    topology: Topology
    metric_names: tuple[str, ...] = ()
    """Names of the metrics that `metrics` and `metrics_of_loss` return."""
    target_share: ClassVar[float] = 0.1
    """Target loss / baseline loss."""
    rows_at_once: int = 500
    """Batch size of evaluation [examples]; bounds memory."""
    splits: dict[Split, Examples]
    notes: tuple[str, ...] = ()
    """What was ignored or converted in the data, a line each."""
    is_stream: bool = False
    """Whether row i of each training batch continues row i of the batch before."""

    @property
    @abstractmethod
    def model_facts(self) -> Mapping[str, Any]:
        """Properties of the data that the options of a target are filled from.

        Images: `in_features`, `in_channels`, `image_size`, `classes`. Tables: `in_features`, `classes` (1 for
        regression). Text: `vocab_size`, `block_size`.
        """

    @property
    @abstractmethod
    def baseline_loss(self) -> float:
        """The loss of the best constant prediction."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, ""]:
        """The mean loss of a network's outputs over a batch."""

    def losses(self, outputs: Tensor, labels: Tensor) -> Float[Tensor, " examples"]:
        """The loss of each example of a batch."""
        return vmap(lambda output, label: self.loss(output.unsqueeze(0), label.unsqueeze(0)))(outputs, labels)

    @abstractmethod
    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Metrics by name, each a mean over the examples of a batch."""

    def metrics_of_loss(self, loss: float) -> dict[str, float]:
        """Metrics that are functions of the mean loss over a split, such as perplexity."""
        return {}

    def describe(self) -> TaskConfig:
        """The description of the task before any training."""
        return TaskConfig(
            kind=self.kind,
            topology=self.topology,
            baseline_loss=self.baseline_loss,
            target_loss=self.target_share * self.baseline_loss,
            metrics=self.metric_names,
            notes=self.notes,
        )

    def batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """The training batches of one epoch, shuffled by the random seed and the epoch alone."""
        examples = self.splits["train"]
        order = torch.randperm(len(examples), generator=generator(seed, epoch))
        for rows in order.split(batch_size):
            yield examples[rows]

    def sample(self, split: Split, size: int, random: torch.Generator) -> Batch:
        """A random batch of a split without replacement; the whole split if it has fewer examples."""
        examples = self.splits[split]
        return examples[torch.randperm(len(examples), generator=random)[:size]]

    def digest(self) -> str:
        """A digest of the data and its splits: 32 hexadecimal characters."""
        sha = hashlib.sha256()
        for name, examples in sorted(self.splits.items()):
            sha.update(name.encode())
            examples.update(sha)
        return sha.hexdigest()[:32]


class FractionConfig(Config):
    """Sizes of the splits that are taken from the training examples."""

    meta_fraction: float = option(
        default=0.2, help="Fraction of the training examples held out for meta-training.", above=0.0, below=0.5
    )
    guard_fraction: float = option(
        default=0.1, help="Fraction of the training examples held out for guards.", above=0.0, below=0.5
    )


class SplitConfig(FractionConfig):
    """Sizes of the splits, and the random seed that divides the examples."""

    split_seed: int = option(default=0, help="Random seed that divides the examples into splits.", at_least=0)


def hold_out(examples: Batch, fraction: float, seed: int) -> tuple[Batch, Batch]:
    """Split off a random validation set, for data that comes without one.

    Returns: training examples, validation examples.
    """
    order = torch.randperm(len(examples.inputs), generator=generator(seed))
    validation, train = order.split([(count := int(len(order) * fraction)), len(order) - count])
    return Batch(*(tensor[train] for tensor in examples)), Batch(*(tensor[validation] for tensor in examples))


def split_examples(
    train: Batch,
    validation: Batch,
    config: SplitConfig,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> dict[Split, Examples]:
    """The four splits: the training examples are divided at random into `train`, `meta` and `guard`.

    Args:
        prepare: converts stored inputs into network inputs.
    Raises:
        TaskDataError: a split would be empty.
    """
    order = torch.randperm(len(train.inputs), generator=generator(config.split_seed))
    meta, guard = (int(len(order) * fraction) for fraction in (config.meta_fraction, config.guard_fraction))
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
def error_source(source: object) -> Iterator[None]:
    """Prefix the data errors of a block with the source of the data.

    Raises:
        TaskDataError: the error of the block, its message prefixed with `source`.
    """
    try:
        yield
    except TaskDataError as error:
        raise TaskDataError(f"{source}: {error}") from error
