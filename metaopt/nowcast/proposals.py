"""What a nowcast proposes, and what became of it."""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

Losses = Float[Tensor, " looks"]
"""What a guard saw at once, as float64: a loss, or one for each example."""


class NowcastEvent(NamedTuple):
    """One nowcast that was proposed; losses are the guard's, None where it was not asked.

    `loss_after` and `horizon` [steps] are those of the best proposal, None where there was none that is finite. Where
    the prediction is of a running average, it may have been `accepted` for that without the weights having `followed`.
    `looks` is how often the guard was asked [count].
    """

    step: int
    loss_before: float | None
    loss_after: float | None
    accepted: bool
    horizon: int | None = None
    followed: bool = False
    looks: int = 0


class Proposal(NamedTuple):
    """Weights that were tried, with the buffers and what the guard saw that belong to them."""

    horizon: int
    weights: Tensor | None
    buffers: list[Tensor]
    losses: Losses | None

    @property
    def rank(self) -> float:
        """What the best proposal has the least of: the mean loss, where it is a number."""
        loss = mean(self.losses)
        return loss if loss is not None and math.isfinite(loss) else math.inf


def mean(losses: Losses | None) -> float | None:
    """Their mean; None for none."""
    return None if losses is None else float(losses.mean())


def better(before: Losses | None, after: Losses | None) -> bool:
    """Whether losses fell by more than chance, their standard error; a single one must not have risen.

    The best of several proposals looks a little better by chance alone. Without losses nothing speaks against.
    """
    return _fell(before, after, errors=1)


def not_worse(before: Losses | None, after: Losses | None) -> bool:
    """Whether losses rose by no more than chance, their standard error; a single one must not have risen."""
    return _fell(before, after, errors=-1)


def _fell(before: Losses | None, after: Losses | None, errors: int) -> bool:
    """Whether the mean fell by so many standard errors or more."""
    if before is None or after is None:
        return True
    drop = before - after
    error = float(drop.std()) / math.sqrt(len(drop)) if len(drop) > 1 else 0.0
    return 0 <= float(drop.mean()) - errors * error < math.inf
