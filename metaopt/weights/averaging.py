"""A running average of weights beside their training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidConfig

SHORT = 0.9
"""Decay of an average over about the last ten updates: where weights stand, without most of their noise."""


class ExponentialMovingAverage:
    """The exponential moving average (EMA) of some tensors, in float32, where the tensors are.

    It is corrected for its start as Adam's moments are: after one update it is the tensors themselves.

    Args:
        decay: weight of the average in its own update, of 0 or more and below 1; it looks 1 / (1 − decay) updates back.
    Raises:
        InvalidConfig: the decay is outside of that.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InvalidConfig(f"ema is {decay!r}; expected a decay of 0 or more and below 1, such as 0.99, or None")
        self.decay = float(decay)
        self.updates = 0
        self.tensors: list[Tensor] = []

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor]) -> None:
        """Take in the tensors after a step."""
        self.updates += 1
        if not self.tensors:
            self.tensors = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in tensors]
        news = [tensor.detach().to(torch.float32) for tensor in tensors]  # a copy only where the precision differs
        torch._foreach_lerp_(self.tensors, news, (1 - self.decay) / (1 - self.decay**self.updates))

    def forget(self) -> None:
        """Start anew with the next update."""
        self.updates, self.tensors = 0, []

    def shift(self, number: int, change: Tensor) -> None:
        """Move the average of one tensor along with it."""
        if self.tensors:
            self.tensors[number] += change

    def state_dict(self) -> dict[str, Any]:
        """Decay, the average and the number of its updates."""
        return {"decay": self.decay, "updates": self.updates, "tensors": [tensor.clone() for tensor in self.tensors]}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Go on from what `state_dict` gave, on the devices of the tensors that are averaged."""
        self.updates = state["updates"]
        pairs = zip(state["tensors"], tensors, strict=True) if state["tensors"] else ()
        self.tensors = [average.to(tensor.device, torch.float32, copy=True) for average, tensor in pairs]
