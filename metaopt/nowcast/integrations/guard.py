"""The guard inside a trainer: losses of a copy of its network on batches that it did not train on."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...core.errors import InvalidConfig
from ...core.rng import isolated
from .isolation import copy_of, copy_sharing_weights

log = logging.getLogger(__name__)

Loss = Callable[[nn.Module, Any], Any]
"""Gives the loss of a network on a batch."""


class BatchesGuard:
    """A guard function: the loss of a network, in evaluation mode, on each of some batches.

    Each call uses a new copy of the network that shares its weights, and copies of the batches. What the loss does to
    the network, such as filling a list or logging, does not reach the training.

    Args:
        model: gives the network; asked at each call, because a trainer can replace it.
        batches: opens the data and gives the batches to use; called once, and they are kept in memory.
        loss: the loss of the copied network on a copied batch.
    """

    def __init__(self, model: Callable[[], nn.Module], batches: Callable[[], Iterable[Any]], loss: Loss) -> None:
        self._model, self._open, self._loss = model, batches, loss
        self._batches: list[Any] = []

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
            losses = [_number(self._loss(model, copy_of(batch))) for batch in self._batches]
        return torch.tensor(losses, dtype=torch.float64)


NO_DATA = "there is no held-out data to guard nowcasts with; give guard_data=…, or guard=… (None for no guard)"


def warn_of_evaluation_data(where: str) -> None:
    """Log that the guard uses the data on which the trainer evaluates.

    Args:
        where: how the trainer calls this data.
    """
    log.warning(
        "the guard of nowcasts uses %s, so the losses that are reported on it are selected on, and too low. To report "
        "on data that selected nothing, give guard_data=… with a part of the training data that you split off",
        where,
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
        if not isinstance(loader, DataLoader) and iter(loader) is loader:
            raise InvalidConfig(
                f"the held-out data is a {type(loader).__name__}, which can be read only once. Give guard_data=… with "
                "a DataLoader or a list of batches"
            )
        with _generators_restored(loader):
            for index, batch in enumerate(islice(_without_workers(loader), count)):
                yield batch, index, number


def _without_workers(loader: Iterable[Any]) -> Iterable[Any]:
    if type(loader) is not DataLoader or not loader.num_workers:
        return loader
    copied = object.__new__(DataLoader)
    alone = {"num_workers": 0, "persistent_workers": False, "prefetch_factor": None, "_iterator": None}
    copied.__dict__.update({**loader.__dict__, **alone})
    return copied


@contextmanager
def _generators_restored(loader: Iterable[Any]) -> Iterator[None]:
    holders = [loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    found = [getattr(holder, "generator", None) for holder in holders]
    states = [(each, each.get_state()) for each in found if isinstance(each, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _number(loss: Any) -> float:
    if not isinstance(loss, Tensor | float) or (isinstance(loss, Tensor) and loss.numel() != 1):
        shape = list(getattr(loss, "shape", []))
        raise InvalidConfig(
            f"the loss to guard nowcasts with is {type(loss).__name__} {shape}; expected one number. Return it from "
            "validation_step or compute_loss, or give loss=lambda module, batch: … or guard=… (None for no guard)"
        )
    return float(loss.detach() if isinstance(loss, Tensor) else loss)
