"""A guard that looks at a few batches of held-out data."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import InvalidConfig


class Looks:
    """The losses of a network, in evaluation mode, on the first batches of held-out data.

    Args:
        model: its mode is afterwards what it was.
        batches: opens the data; called once, at the first look, and drawing no randomness of the training.
        count: batches that are looked at and kept in memory [count].
        loss: of a batch.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Callable[[], Iterable[Any]],
        count: int,
        loss: Callable[[Any], Tensor],
    ) -> None:
        self._model, self._open, self._count, self._loss = model, batches, count, loss
        self._batches: list[Any] = []

    def __call__(self) -> Float[Tensor, " batches"]:
        """Look: one loss for each batch.

        Raises:
            InvalidConfig: there is no held-out data.
        """
        if not self._batches:
            with torch.random.fork_rng(devices=[]):  # a data loader draws a number when it is opened
                self._batches = list(islice(self._open(), self._count))
        if not self._batches:
            raise InvalidConfig("no batch of held-out data to guard nowcasts with; give some, or a guard of your own")
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            return torch.tensor([float(self._loss(batch)) for batch in self._batches], dtype=torch.float64)
        finally:
            for module, training in modes:
                module.training = training
