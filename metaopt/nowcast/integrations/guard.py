"""The guard inside a trainer: losses of a copy of its network on batches that it did not train on."""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import InvalidConfig
from ...core.rng import isolated
from ..guards.examples import check_readable_again, generators_restored, without_workers
from ..guards.guard import RotatingGuard
from .isolation import copy_of, copy_sharing_weights

log = logging.getLogger(__name__)

POOL = 8
"""How many times the batches of a nowcast are read and kept, so that each nowcast can use others."""

EVALUATION = "evaluation"
"""Value of `guard_data` for the data on which the trainer evaluates."""

_SHARE, _FEWEST, _MOST, _LARGEST_SHARE = 0.02, 64, 2048, 0.1

Loss = Callable[[nn.Module, Any], Any]
"""Gives the loss of a network on a batch."""


class BatchesGuard(RotatingGuard):
    """A guard function: the loss of a network, in evaluation mode, on each of some batches.

    Each call uses a new copy of the network that shares its weights, and copies of the batches. What the loss does to
    the network, such as filling a list or logging, does not reach the training. Each nowcast uses other batches.

    Args:
        model: gives the network; asked at each call, because a trainer can replace it.
        batches: opens the data and gives POOL times the batches of a nowcast; called once, and they are kept in memory.
        loss: the loss of the copied network on a copied batch.
        count: how many batches a nowcast uses at least, if there are so many [count].
    """

    def __init__(
        self, model: Callable[[], nn.Module], batches: Callable[[], Iterable[Any]], loss: Loss, count: int
    ) -> None:
        self._model, self._open, self._loss, self._count = model, batches, loss, count
        self._batches: list[Any] = []
        self._drawn: tuple[int, float, bool] = (0, 1.0, False)

    def start(self, step: int, share: float = 1.0, *, fresh: bool = False) -> None:
        """Begin a nowcast: other batches."""
        self._drawn = step, share, fresh

    def finish(self) -> None:
        """End a nowcast; the batches stay in main memory."""

    @property
    def smallest_share(self) -> float:
        """The share at which two batches are left."""
        return min(2 / self._count, 1.0)

    def __call__(self) -> Float[Tensor, " batches"]:
        """Measure one loss per batch.

        Raises:
            InvalidConfig: there is no held-out data, or the result is not a loss.
        """
        if not self._batches:
            with isolated():  # a data loader draws a number when it is opened
                self._batches = list(self._open())
        if not self._batches:
            raise InvalidConfig(NO_DATA)
        model = copy_sharing_weights(self._model()).eval()
        with torch.compiler.set_stance("force_eager"):  # each copy would be compiled again
            losses = [_number(self._loss(model, copy_of(batch))) for batch in self._chosen()]
        return torch.tensor(losses, dtype=torch.float64)

    def _chosen(self) -> list[Any]:
        step, share, fresh = self._drawn
        at_least = max(-(-len(self._batches) // POOL), min(self._count, len(self._batches)))
        order = np.random.default_rng([step, fresh]).permutation(len(self._batches))
        return [self._batches[row] for row in order[: max(round(share * at_least), 1)]]


NO_DATA = "there is no held-out data to guard nowcasts with; give guard_data=…, or guard=… (None for no guard)"


def warn_of_evaluation_data(where: str, why: str = "") -> None:
    """Log that the guard uses the data on which the trainer evaluates.

    Args:
        where: how the trainer calls this data.
        why: why no part of the training data could be taken.
    """
    log.warning(
        "the guard of nowcasts uses %s, so the losses that are reported on it are selected on, and too low%s. To "
        "report on data that selected nothing, give guard_data=… with a part of the training data that you split off",
        where,
        why,
    )


def split_rows(size: int) -> tuple[list[int], list[int]] | None:
    """Rows of training data to train on, and rows to guard nowcasts with: 2 %, at least 64, at most a tenth.

    The same size gives the same rows, so a resumed training keeps them apart.

    Args:
        size: number of examples [count].
    Returns: None if there are too few examples.
    """
    count = min(max(round(_SHARE * size), _FEWEST), _MOST, int(_LARGEST_SHARE * size))
    if count < 2:
        return None
    order = np.random.default_rng(size).permutation(size)
    return np.sort(order[count:]).tolist(), np.sort(order[:count]).tolist()


def tell_of_split(count: int, size: int) -> None:
    """Log that examples were taken out of the training data."""
    log.warning(
        "the guard of nowcasts uses %s of the %s training examples, and the training the others. To choose them "
        "yourself, give guard_data=…",
        f"{count:,}",
        f"{size:,}",
    )


def first_batches(loaders: Iterable[Iterable[Any]], count: int) -> Iterator[tuple[Any, int, int]]:
    """The first batches of each data loader, with the index of the batch and that of the loader.

    The loaders stay as they are: no worker is started, and their generators are restored.

    Args:
        loaders: of held-out data.
        count: how many batches of each to read [count].
    Raises:
        InvalidConfig: one can be read only once, so the trainer would miss these batches.
    """
    for number, loader in enumerate(loaders):
        check_readable_again(loader)
        with generators_restored(loader):
            for index, batch in enumerate(islice(without_workers(loader), count)):
                yield batch, index, number


def _number(loss: Any) -> float:
    if not isinstance(loss, Tensor | float) or (isinstance(loss, Tensor) and loss.numel() != 1):
        shape = list(getattr(loss, "shape", []))
        raise InvalidConfig(
            f"the loss to guard nowcasts with is {type(loss).__name__} {shape}; expected one number. Return it from "
            "validation_step or compute_loss, or give loss=lambda module, batch: … or guard=… (None for no guard)"
        )
    return float(loss.detach() if isinstance(loss, Tensor) else loss)
