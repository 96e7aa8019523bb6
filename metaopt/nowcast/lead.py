"""What a prediction adds to the average in use while the weights have not followed it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Lead:
    """How far a prediction is ahead of the running average that it is of.

    It fades at the pace at which the average takes in new weights, which are on their own way there.
    """

    def __init__(self) -> None:
        self._change: Tensor | None = None
        self._since = 0

    def set(self, change: Float[Tensor, " weights"] | None, step: int) -> None:
        """Begin anew.

        Args:
            change: from the average to the prediction; None for no lead [raw units].
            step: when that is [steps].
        """
        self._change, self._since = change, step

    def on(self, average: Float[Tensor, " weights"], decay: float, step: int) -> Float[Tensor, " weights"]:
        """The average with what is left of the lead [raw units].

        Args:
            decay: of the average.
            step: when that is [steps].
        """
        if self._change is None:
            return average
        return average + decay ** (step - self._since) * self._change.to(average.device)

    def state_dict(self) -> dict[str, Any]:
        """The lead, and since when it is there."""
        return {"change": None if self._change is None else self._change.clone(), "since": self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        change = state["change"]
        self.set(None if change is None else torch.clone(change), state["since"])
