"""When nowcasts take place and how far they look ahead."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.errors import InvalidConfig

REACH = 0.5
"""The share of the steps so far that a nowcast looks ahead at most."""

_USUAL = (0.5, 1.5, 4.0, 8.0)  # times `every`


def check_schedule(every: int, stride: int, *horizons: int) -> None:
    """Refuse steps at which no nowcast can take place.

    Raises:
        InvalidConfig: a number is not a positive whole one, or `every` is not a multiple of `stride`.
    """
    for name, value in (("every", every), ("stride", stride), *(("horizon", horizon) for horizon in horizons)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidConfig(f"{name} is {value!r}; expected a whole number of 1 or more [steps]")
    if every % stride:
        raise InvalidConfig(
            f"every is {every}, which is not a multiple of stride, {stride}: a nowcast starts from a snapshot. "
            f"Take every={whole_strides(every, stride)}"
        )


def whole_strides(steps: float, stride: int) -> int:
    """The multiple of the stride that is nearest to some steps, and at least one stride [steps]."""
    return max(round(steps / stride), 1) * stride


def usual_horizons(every: int, stride: int) -> tuple[int, ...]:
    """What is proposed unless told otherwise, and what live rounds learn: short to long ways ahead [steps].

    Which one is best changes in the course of a training; looking at several costs forward passes only.
    """
    return tuple(dict.fromkeys(whole_strides(factor * every, stride) for factor in _USUAL))


def within_reach(horizons: Sequence[int], step: int) -> tuple[int, ...]:
    """Those that are no longer than half of the steps so far, and always the shortest [steps].

    The first steps of a training say little about where hundreds of them lead. A guard approves of going far all the
    same, because the loss falls, and on small data it ends in worse solutions (docs/decisions/0013).
    """
    return tuple(horizon for horizon in horizons if horizon <= REACH * step) or (min(horizons),)


def choose_horizons(
    every: int, stride: int, horizon: int | None, horizons: Sequence[int] | None, guarded: bool
) -> tuple[int, ...]:
    """The horizons that are proposed at each nowcast: the usual ones, or `every` where no guard chooses [steps].

    Raises:
        InvalidConfig: both are given, or `horizons` is empty.
    """
    if horizons is None:
        usual = usual_horizons(every, stride) if guarded else (every,)
        return usual if horizon is None else (horizon,)
    if horizon is not None or not horizons:
        raise InvalidConfig(f"horizon is {horizon} and horizons is {horizons!r}; expected one of the two, not empty")
    return tuple(horizons)


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


STRAIGHT = 0.7
"""The cosine between two displacements that follow each other, from which on a training goes straight on."""

_AT_ONCE = 2**20  # weights that are compared at a time, which bounds memory


def check_straight(at_least: float) -> None:
    """Refuse what is no cosine.

    Raises:
        InvalidConfig: it is below -1 or above 1.
    """
    if not -1 <= at_least <= 1:
        raise InvalidConfig(f"straight is {at_least!r}; expected a cosine from -1 to 1")


def goes_straight(
    history: Float[Tensor, "*rows snapshots weights"],
    length: int,
    stride: int,
    averaging: float,
    at_least: float = STRAIGHT,
) -> Bool[Tensor, "*rows"]:
    """Whether a running average still moves where it moved before, so that larger steps would lead there sooner.

    Where it turns to and fro instead, it moves by the noise of its last steps; weights that follow a prediction there
    gain what is lost again within a hundred steps, and end in worse solutions (docs/decisions/0014). The two
    displacements that are compared are as long as the average looks back, or as the history allows.

    Args:
        history: the snapshots that there are, a stride apart, oldest first [raw units].
        length: how many there will be [count]. With less than three nothing can be said, and weights may follow; while
            there are too few yet, they may not.
        stride: steps between snapshots [steps].
        averaging: decay of the running average that they are of.
        at_least: the cosine that is asked for [1].
    """
    there = history.shape[-2]
    if there < 3:
        return torch.full(history.shape[:-2], length < 3)
    span = max(min(round(1 / (1 - averaging)) // stride, (there - 1) // 2), 1)
    return _cosine(history[..., -1 - 2 * span :: span, :]) >= at_least


def _cosine(three: Float[Tensor, "*rows 3 weights"]) -> Float[Tensor, "*rows"]:
    """Between the displacement from the first to the second and that from there to the third; NaN where one is zero."""
    products = torch.zeros(3, *three.shape[:-2], dtype=torch.float64)
    for some in three.split(_AT_ONCE, -1):
        then, now = some.diff(dim=-2).unbind(-2)
        products += torch.stack([(then * now).sum(-1), then.square().sum(-1), now.square().sum(-1)])
    aligned, before, after = products
    return aligned / (before * after).sqrt()
