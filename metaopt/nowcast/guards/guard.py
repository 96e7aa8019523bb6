"""The guard of a nowcast: losses on held-out data that decide what is accepted."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.errors import InvalidConfig
from ...core.rng import generator, isolated
from ...tasks.measure import modes_restored
from ..advice import warned_of_training_mode
from ..costs import Stopwatch
from ..distributed import broadcast_from_rank_0

GuardFunction = Callable[[], Tensor | float]
"""Gives the loss of the network as it is now on held-out data: one number, or a tensor with one per example."""


class RotatingGuard(ABC):
    """A guard function that chooses its examples itself: other ones at each nowcast."""

    @abstractmethod
    def start(self, step: int, share: float = 1.0, *, fresh: bool = False) -> None:
        """Begin a nowcast: other examples.

        Args:
            step: the present training time, by which they are chosen [steps].
            share: how many of the examples to use, between 0 and 1.
            fresh: whether they are others than those of a nowcast at this step.
        """

    @abstractmethod
    def finish(self) -> None:
        """End a nowcast: the examples may leave the memory."""

    @property
    @abstractmethod
    def smallest_share(self) -> float:
        """The smallest useful share of the examples."""

    @abstractmethod
    def __call__(self) -> Float[Tensor, " examples"]:
        """Measure the losses of the network as it is now."""


class Guard:
    """Calls a guard function without gradients and counts the calls. All ranks get the losses of rank 0.

    All calls of one nowcast draw the same random numbers, so that dropout or noise does not distinguish the proposals.
    Afterwards the global generators and the mode of each module are as before.

    Args:
        function: None for no guard.
        model: the network that the function measures.
        warn: called with a message when a loss is not finite.
        stopwatch: measures the calls.
    """

    def __init__(
        self, function: GuardFunction | None, model: nn.Module, warn: Callable[[str], None], stopwatch: Stopwatch
    ) -> None:
        self.function, self.calls = function, 0
        self._stopwatch = stopwatch
        self._model, self._warn = model, warn
        self._seed, self._count, self._mode_is_known = 0, 0, False

    def __bool__(self) -> bool:
        return self.function is not None

    def start(self, step: int, share: float = 1.0, *, fresh: bool = False) -> None:
        """Begin a nowcast: new random numbers, and no calls so far; new examples, if the function chooses them.

        Args:
            step: the present training time [steps].
            share: how many of its examples such a function uses, between 0 and 1.
            fresh: whether they are others than those of a nowcast at this step.
        """
        self.calls, self._count = 0, 0
        self._seed = generator(torch.initial_seed(), step).initial_seed()
        if isinstance(self.function, RotatingGuard):
            self.function.start(step, share, fresh=fresh)

    def finish(self) -> None:
        """End a nowcast."""
        if isinstance(self.function, RotatingGuard):
            self.function.finish()

    @property
    def smallest_share(self) -> float:
        """The smallest useful share of the examples; 1 if the function does not choose them."""
        return self.function.smallest_share if isinstance(self.function, RotatingGuard) else 1.0

    @torch.no_grad()
    def losses(self, device: torch.device) -> Float[Tensor, " examples"] | None:
        """The losses now, float64 on the CPU; None without a guard.

        Args:
            device: device of the network, on which the process group can communicate.
        Raises:
            InvalidConfig: the function returned no losses, or another number of them than before in this nowcast.
        """
        if self.function is None:
            return None
        self.calls += 1
        warned = nullcontext() if self._mode_is_known else warned_of_training_mode(self._model)
        self._mode_is_known = True
        torch.clear_autocast_cache()  # inside autocast it has the weights of before
        timed = self._stopwatch.part("guard")
        with timed, isolated(self._seed), modes_restored(self._model), warned:
            measured = as_losses(self.function())
        torch.clear_autocast_cache()
        if self._count and len(measured) != self._count:
            raise InvalidConfig(
                f"the guard returned {len(measured)} losses, and {self._count} before in the same nowcast; expected "
                "the losses of the same examples. Choose the examples by optimizer.steps, which is the same within a "
                "nowcast"
            )
        self._count = len(measured)
        losses = broadcast_from_rank_0(measured, device)
        if not bool(losses.isfinite().all()):
            self._warn("the guard's loss is not finite")
        return losses


def as_losses(result: Any) -> Float[Tensor, " examples"]:
    """The losses that a guard function returned, float64 on the CPU.

    Raises:
        InvalidConfig: it is not a floating-point number, tensor or array, or is empty.
    """
    array = isinstance(result, np.ndarray | np.floating)
    losses = torch.as_tensor(result) if array or isinstance(result, Tensor | float) else None
    if losses is None or not losses.is_floating_point() or not losses.numel():
        kind = type(result).__name__ if losses is None else f"a tensor of shape {tuple(losses.shape)}, {losses.dtype}"
        raise InvalidConfig(
            f"the guard returned {kind}; expected the loss as a floating-point number, or a tensor with one per example"
        )
    return losses.detach().to("cpu", torch.float64).flatten()
