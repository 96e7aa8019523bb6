"""Whether a training goes straight on, which is where its weights may follow a prediction."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import InvalidConfig

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
