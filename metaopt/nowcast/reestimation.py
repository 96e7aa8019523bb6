"""Buffers that depend on the weights: how they are updated when the weights are no longer those of the training."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim.swa_utils import update_bn

from ..core.rng import isolated
from ..nested.carried_memory import carried_memories
from ..tasks.measure import modes_restored
from .costs import Stopwatch
from .distributed import broadcast_in_place
from .model_state import unwrapped
from .statistics import RunningStatistics


class Reestimation:
    """Updates the buffers of a network for its present weights, and copies those of rank 0 to all ranks.

    Memories that are carried stay as they are: each rank has sequences of its own.

    Args:
        model: the network.
        function: of the user, which updates the buffers; None for none.
        statistics: estimates running statistics; None if `function` does, or there are none.
        stopwatch: measures the updates.
    """

    def __init__(
        self,
        model: nn.Module,
        function: Callable[[], None] | None,
        statistics: RunningStatistics | None,
        stopwatch: Stopwatch,
    ) -> None:
        self._model, self._function = unwrapped(model), function
        self._statistics, self._stopwatch = statistics, stopwatch

    @property
    def estimates(self) -> bool:
        """Whether running statistics are estimated from the inputs of the training."""
        return self._statistics is not None

    def start(self) -> None:
        """Begin with the modules that the network has now."""
        if self._statistics is not None:
            self._statistics.start()

    def note(self) -> None:
        """Note a training pass."""
        if self._statistics is not None:
            self._statistics.note()

    def update_buffers(self) -> None:
        """Call the function of the user."""
        if self._function is not None:
            # A data loader that is opened draws a number, and BatchNorm is updated in training mode.
            with self._stopwatch.part("reestimation"), isolated(), modes_restored(self._model):
                self._function()
        self._share_buffers()

    def update_statistics(self, batches: int | None = None) -> None:
        """Estimate running statistics, unless a function of the user does.

        Args:
            batches: from how many of the kept batches; all by default [count].
        """
        if self._statistics is not None:
            with self._stopwatch.part("reestimation"):
                self._statistics.update(batches)
            self._share_buffers()

    def _share_buffers(self) -> None:
        carried = carried_memories(self._model)
        broadcast_in_place(buffer for name, buffer in self._model.named_buffers() if name not in carried)


def reestimate_batchnorm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Estimate the running statistics of all BatchNorm layers again, as the mean over some batches of training inputs.

    After a nowcast they would still be those of the weights before it.

        import torch
        import metaopt

        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        metaopt.reestimate_batchnorm(model, [torch.randn(16, 4) for _ in range(3)])

    Args:
        model: unchanged if it has no such layer.
        batches: inputs, or tuples that start with them.
    """
    with isolated():  # dropout must not shift the randomness of the training around it
        update_bn(batches, model)
