"""A copy of a training, to which it returns if its loss rises while a growth seed is blended in."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..core.errors import Diverged

_DECAY = 0.9  # of the running average of the loss
_LEAST = 5  # steps after which the average can be trusted


class Rollback:
    """A running average of the loss, and copies of a network and its optimizer.

    Args:
        spike: a loss above this times its running average is a spike.
    """

    def __init__(self, spike: float) -> None:
        self._spike = spike
        self._average, self._count = 0.0, 0
        self._kept: dict[str, Any] | None = None

    def is_spike(self, loss: float) -> bool:
        """Whether a loss is not finite, or far above its running average."""
        average = self._average / (1 - _DECAY**self._count) if self._count else math.inf
        return not math.isfinite(loss) or (self._count >= _LEAST and loss > self._spike * average)

    def note(self, loss: float) -> None:
        """Take a loss into the running average, if it is finite."""
        if math.isfinite(loss):
            self._average = _DECAY * self._average + (1 - _DECAY) * loss
            self._count += 1

    def keep(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy the network and the state of its optimizer."""
        weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._kept = {"model": weights, "optimizer": copy.deepcopy(optimizer.state_dict())}

    def forget(self) -> None:
        """Drop the copy."""
        self._kept = None

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Return to the copy.

        Raises:
            Diverged: there is none.
        """
        if self._kept is None:
            raise Diverged("the loss rose while a growth seed was blended in, and there is no copy to return to")
        model.load_state_dict(self._kept["model"])
        optimizer.load_state_dict(copy.deepcopy(self._kept["optimizer"]))

    def state_dict(self) -> dict[str, Any]:
        """The average and the copy."""
        return {"average": self._average, "count": self._count, "kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        kept = state["kept"]
        self._average, self._count = float(state["average"]), int(state["count"])
        self._kept = None if kept is None else {"model": kept["model"], "optimizer": kept["optimizer"]}
