"""The exponential moving average of weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidConfig
from ..core.text import shown

SHORT_DECAY = 0.9
"""Decay of an average over about the last ten updates, without most of the noise of the weights."""


class ExponentialMovingAverage:
    """The exponential moving average (EMA) of some tensors, in float32, on their devices.

    The bias of the start is corrected as in Adam (arXiv:1412.6980): after n updates with w_1, …, w_n it is
    Σ βⁿ⁻ᵏ w_k / Σ βⁿ⁻ᵏ, so after one update it equals the tensors. The update is the in-place interpolation
    a ← a + (1 − β) / (1 − βⁿ) · (w − a).

        import torch
        from metaopt.weights.averaging import ExponentialMovingAverage

        average = ExponentialMovingAverage(0.98)
        average.update([torch.ones(3)])
        average.tensors[0]  # tensor([1., 1., 1.])

    Args:
        decay: β in [0, 1); the average covers about 1 / (1 − β) updates.
        tensors: memory for the average; new tensors by default.
    Raises:
        InvalidConfig: the decay is out of range.
    """

    def __init__(self, decay: float, tensors: Sequence[Tensor] = ()) -> None:
        if not 0 <= decay < 1:
            raise InvalidConfig(
                f"ema is {shown(decay)}; expected a decay of 0 or more and below 1, such as 0.99, or None"
            )
        self.decay = float(decay)
        self.updates = 0
        self.tensors = list(tensors)

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor], count: int = 1) -> None:
        """Update the average with the tensors after a step.

        Args:
            count: for how many updates this one counts, all with the same tensors.
        """
        self.updates += count
        if not self.tensors:
            self.tensors = [torch.zeros_like(tensor, dtype=torch.float32) for tensor in tensors]
        # A copy only where the precision differs. One operation for all tensors: this runs at every step.
        values = [tensor if tensor.dtype is torch.float32 else tensor.float() for tensor in tensors]
        torch._foreach_lerp_(self.tensors, values, (1 - self.decay**count) / (1 - self.decay**self.updates))

    def reset(self) -> None:
        """Forget the average; the next update is the first."""
        self.updates, self.tensors = 0, []

    def shift(self, changes: Sequence[Tensor]) -> None:
        """Add a change to the average of each tensor."""
        if self.tensors:
            torch._foreach_add_(self.tensors, list(changes))

    def state_dict(self) -> dict[str, Any]:
        """The decay, the average and the number of its updates."""
        return {"decay": self.decay, "updates": self.updates, "tensors": [tensor.clone() for tensor in self.tensors]}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        """Restore a state of `state_dict` on the devices of the averaged tensors."""
        self.updates = state["updates"]
        pairs = zip(state["tensors"], tensors, strict=True) if state["tensors"] else ()
        self.tensors = [average.to(tensor.device, torch.float32, copy=True) for average, tensor in pairs]
