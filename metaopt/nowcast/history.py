"""The snapshots that a prediction is made from."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import CheckpointError, LayoutMismatch
from ..weights.layout import Layout, is_finite


class History:
    """The last snapshots, oldest first, in one block of memory that is there once.

    Args:
        length: snapshots that are kept [count].
        layout: what a snapshot holds.
    """

    def __init__(self, length: int, layout: Layout) -> None:
        self.times: list[int] = []
        self._layout, self._length = layout, length
        self._rows = torch.empty(0, layout.size)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def weights(self) -> Float[Tensor, "snapshots weights"]:
        """All snapshots, oldest first; a view [raw units]."""
        return self._rows[: len(self)]

    def add(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after a step; the oldest ones make room."""
        self._layout.flatten(weights, out=self._free_row())
        self.times.append(step)

    def shift(self, number: int, change: Tensor) -> None:
        """Move one tensor of the layout in all snapshots."""
        begin = self._layout.offsets[number]
        self.weights[:, begin : begin + change.numel()] += change.flatten().cpu()

    def clear(self) -> None:
        """Forget all snapshots."""
        self.times.clear()

    def is_finite(self) -> bool:
        """Whether every weight of every snapshot is a finite number."""
        return all(map(is_finite, self.weights))

    def state_dict(self) -> dict[str, Any]:
        """Times, snapshots and what they hold, as lists, numbers and tensors."""
        history = [row.clone() for row in self.weights]
        return {"times": list(self.times), "history": history, "layout": self._layout.to_list()}

    def check_state(self, state: dict[str, Any]) -> None:
        """Refuse the state of a past that is not of these weights.

        Raises:
            CheckpointError: times and snapshots are not as many.
            LayoutMismatch: the snapshots are of another network.
        """
        for weights in state["history"]:
            self._layout.check_size(weights)
        theirs = Layout.from_list(state["layout"])
        if _names_and_shapes(theirs) != _names_and_shapes(self._layout):
            raise LayoutMismatch(
                f"an optimizer state of other weights, {_names_and_shapes(theirs)!r:.200}; expected "
                f"{_names_and_shapes(self._layout)!r:.200}. Load it into the network that it was saved with"
            )
        if len(state["times"]) != len(state["history"]):
            raise CheckpointError(
                f"an optimizer state with {len(state['history'])} snapshots and {len(state['times'])} times of them; "
                "expected as many. The state is damaged: take an older one"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave and `check_state` accepted."""
        self.clear()
        self._fill(zip(state["times"], state["history"], strict=True))

    def _fill(self, snapshots: Iterable[tuple[int, Tensor]]) -> None:
        for step, weights in snapshots:
            self._free_row().copy_(weights)
            self.times.append(step)

    def _free_row(self) -> Tensor:
        if not len(self._rows):  # here and not earlier: who never trains needs no memory
            self._rows = torch.empty(self._length, self._layout.size)
        if len(self) == self._length:
            for older, newer in zip(self._rows[:-1], self._rows[1:], strict=True):
                older.copy_(newer)
            self.times.pop(0)
        return self._rows[len(self)]


def _names_and_shapes(layout: Layout) -> list[tuple[str, tuple[int, ...]]]:
    return [(tensor.name, tensor.shape) for tensor in layout.tensors]


class AverageOffset:
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
