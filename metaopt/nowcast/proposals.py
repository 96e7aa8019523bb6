"""What a nowcast proposes, and what became of it."""

import math
from typing import NamedTuple

from torch import Tensor


class NowcastEvent(NamedTuple):
    """One nowcast that was proposed; losses are the guard's, None where it was not asked.

    `loss_after` and `horizon` [steps] are those of the best proposal, None where there was none that is finite.
    """

    step: int
    loss_before: float | None
    loss_after: float | None
    accepted: bool
    horizon: int | None = None


class Proposal(NamedTuple):
    """Weights that were tried, with the buffers and the guard's loss that belong to them."""

    horizon: int
    weights: Tensor | None
    buffers: list[Tensor]
    loss: float | None

    @property
    def rank(self) -> float:
        """What the best proposal has the least of: the loss, where it is a number."""
        return self.loss if self.loss is not None and math.isfinite(self.loss) else math.inf


def not_worse(before: float | None, after: float | None) -> bool:
    """Whether a loss did not rise; without losses nothing speaks against."""
    return before is None or after is None or 0 <= before - after < math.inf
