"""State between nowcasts: the last snapshots, and the offset of an accepted forecast from the average."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import CheckpointError, LayoutMismatch
from ..weights.layout import Layout, is_finite


class History:
    """The last snapshots, oldest first, in one block of memory.

    Args:
        length: how many snapshots to keep [count].
        layout: names and shapes of the weights in a snapshot.
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

    def add(self, step: int, weights: Sequence[Tensor]) -> None:
        """Add the weights after a step; the oldest snapshot is dropped if the history is full."""
        self._layout.join(weights, out=self._free_row())
        self.times.append(step)

    def shift(self, number: int, change: Tensor) -> None:
        """Add a change to one tensor of the layout in all snapshots."""
        begin = self._layout.offsets[number]
        self.weights[:, begin : begin + change.numel()] += change.flatten().cpu()

    def clear(self) -> None:
        """Drop all snapshots."""
        self.times.clear()

    def is_finite(self) -> bool:
        """Whether every weight of every snapshot is finite."""
        return all(map(is_finite, self.weights))

    def state_dict(self) -> dict[str, Any]:
        """Times, snapshots and layout, as lists, numbers and tensors."""
        history = [row.clone() for row in self.weights]
        return {"times": list(self.times), "history": history, "layout": self._layout.to_list()}

    def check_state(self, state: dict[str, Any]) -> None:
        """Check that a state is of the history of the same weights.

        Raises:
            CheckpointError: the numbers of times and snapshots differ.
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
        """Restore what `state_dict` returned and `check_state` accepted."""
        self.clear()
        self._fill(zip(state["times"], state["history"], strict=True))

    def _fill(self, snapshots: Iterable[tuple[int, Tensor]]) -> None:
        for step, weights in snapshots:
            self._free_row().copy_(weights)
            self.times.append(step)

    def _free_row(self) -> Tensor:
        if not len(self._rows):  # allocated with the first snapshot
            self._rows = torch.empty(self._length, self._layout.size)
        if len(self) == self._length:
            for older, newer in zip(self._rows[:-1], self._rows[1:], strict=True):
                older.copy_(newer)
            self.times.pop(0)
        return self._rows[len(self)]


def _names_and_shapes(layout: Layout) -> list[tuple[str, tuple[int, ...]]]:
    return [(tensor.name, tensor.shape) for tensor in layout.tensors]


class AverageOffset:
    """Difference between an accepted forecast and the running average that it predicts.

    The weights did not follow the forecast, and the average approaches it during training. After k steps, βᵏ times
    the offset remains, with β the decay of the average.
    """

    def __init__(self) -> None:
        self._change: Tensor | None = None
        self._since = 0

    def set(self, change: Float[Tensor, " weights"] | None, step: int) -> None:
        """Replace the offset.

        Args:
            change: from the average to the forecast; None for no offset [raw units].
            step: the present training time [steps].
        """
        self._change, self._since = change, step

    def on(self, average: Float[Tensor, " weights"], decay: float, step: int) -> Float[Tensor, " weights"]:
        """The average plus the remaining offset [raw units].

        Args:
            decay: of the average.
            step: the present training time [steps].
        """
        if self._change is None:
            return average
        return average + decay ** (step - self._since) * self._change.to(average.device)

    def state_dict(self) -> dict[str, Any]:
        """The offset and the step at which it was set."""
        return {"change": None if self._change is None else self._change.clone(), "since": self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        change = state["change"]
        self.set(None if change is None else torch.clone(change), state["since"])
