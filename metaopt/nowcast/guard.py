"""The guard of a nowcast: losses on held-out data that decide what is accepted."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..core.errors import InvalidConfig
from ..core.rng import isolated
from ..tasks.measure import in_evaluation_mode
from .distributed import broadcast_from_rank_0

GuardFunction = Callable[[], Tensor | float]
"""Gives the loss of the network as it is now on held-out data: one number, or a tensor with one per example."""


class Guard:
    """Calls a guard function without gradients and counts the calls. All ranks get the losses of rank 0.

    Args:
        function: None for no guard.
        warn: called with a message when a loss is not finite.
    """

    def __init__(self, function: GuardFunction | None, warn: Callable[[str], None]) -> None:
        self.function, self.calls = function, 0
        self._warn = warn

    def __bool__(self) -> bool:
        return self.function is not None

    @torch.no_grad()
    def losses(self, device: torch.device) -> Float[Tensor, " examples"] | None:
        """The losses now, float64 on the CPU; None without a guard.

        Args:
            device: device of the network, on which the process group can communicate.
        """
        if self.function is None:
            return None
        self.calls += 1
        measured = torch.as_tensor(self.function(), dtype=torch.float64).detach().cpu().flatten()
        losses = broadcast_from_rank_0(measured, device)
        if not bool(losses.isfinite().all()):
            self._warn("the guard's loss is not finite")
        return losses


class BatchesGuard:
    """A guard function: the losses of a network, in evaluation mode, on the first batches of held-out data.

    Args:
        model: its mode is restored after each call.
        batches: opens the data; called once, with the random numbers of the training left untouched.
        count: how many batches to use and keep in memory [count].
        loss: the loss of a batch.
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
        """Measure one loss per batch.

        Raises:
            InvalidConfig: there is no held-out data.
        """
        if not self._batches:
            with isolated():  # a data loader draws a number when it is opened
                self._batches = list(islice(self._open(), self._count))
        if not self._batches:
            raise InvalidConfig("no batch of held-out data to guard nowcasts with; give some, or a guard of your own")
        with in_evaluation_mode(self._model):
            return torch.tensor([float(self._loss(batch)) for batch in self._batches], dtype=torch.float64)
