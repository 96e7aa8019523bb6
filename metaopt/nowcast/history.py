"""State between nowcasts: the last snapshots, and the offset of an accepted forecast from the average."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import CheckpointError, LayoutMismatch
from ..core.text import shown
from ..weights.layout import Layout, finite
from ..weights.snapshots import Snapshots
from .memory import Memory


class History:
    """The last snapshots, oldest first.

    Args:
        length: how many snapshots to keep [count].
        layout: names and shapes of the weights in a snapshot.
        memory: where and in which precision they are kept. In a lower precision than float32, the last snapshot is
            also kept in float32, because forecasts start from it.
    """

    def __init__(self, length: int, layout: Layout, memory: Memory) -> None:
        self.times: list[int] = []
        self._layout, self._length, self._memory = layout, length, memory
        self._rows: list[Tensor] = []
        self._last: Tensor | None = None
        self._finite: list[Tensor] = []  # of each row; on the device, so that no step waits for it

    def __len__(self) -> int:
        return len(self.times)

    @property
    def snapshots(self) -> Snapshots:
        """All snapshots, oldest first [raw units]. They are read to the device of the weights."""
        self._memory.wait()
        rows = self._rows if self._last is None else [*self._rows[:-1], self._last]
        return Snapshots(rows, self._memory.device)

    def add(self, step: int, weights: Sequence[Tensor]) -> None:
        """Add the weights after a step; the oldest snapshot is dropped if the history is full.

        The training does not wait for a copy to other memory.
        """
        row = self._drop_oldest() if len(self) == self._length else self._memory.new_row(self._layout.size)
        if self._memory.is_direct:
            written = self._layout.join(weights, out=row)
        else:
            written = self._layout.join(weights, out=self._memory.staging(self._layout.size))
            self._memory.copy(written, self._rows_of_last(row))
        self._append(step, row, finite(written))

    def shift(self, change: Float[Tensor, " weights"]) -> None:
        """Add a change of the weights to all snapshots [raw units]."""
        rows = self.snapshots.rows
        change = change.to(rows[0].device)
        for row in rows:
            row += change
        if self._last is not None:
            self._rows[-1].copy_(self._last)

    def clear(self) -> None:
        """Drop all snapshots."""
        self._memory.wait()
        self.times, self._rows, self._finite = [], [], []

    def is_finite(self) -> bool:
        """Whether every weight of every snapshot was finite when it was added."""
        return not self._finite or bool(torch.stack(self._finite).all())

    def state_dict(self) -> dict[str, Any]:
        """Times, snapshots and layout, as lists, numbers and tensors in main memory."""
        history = [row.to("cpu", copy=True) for row in self.snapshots.rows]
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
                f"an optimizer state of other weights, {shown(_names_and_shapes(theirs))}; expected "
                f"{shown(_names_and_shapes(self._layout))}. Load it into the network that it was saved with"
            )
        if len(state["times"]) != len(state["history"]):
            raise CheckpointError(
                f"an optimizer state with {len(state['history'])} snapshots and {len(state['times'])} times of them; "
                "expected as many. The state is damaged: take an older one"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned and `check_state` accepted."""
        self.clear()
        for step, weights in zip(state["times"], state["history"], strict=True):
            row = self._drop_oldest() if len(self) == self._length else self._memory.new_row(self._layout.size)
            for each in self._rows_of_last(row):
                each.copy_(weights)
            self._append(step, row, finite(weights).to(self._memory.device))

    def _drop_oldest(self) -> Tensor:
        """Drop the oldest snapshot and give its memory."""
        del self.times[0], self._finite[0]
        return self._rows.pop(0)

    def _rows_of_last(self, row: Tensor) -> list[Tensor]:
        """What the last snapshot is written to: its row and, in lower precision, the float32 copy."""
        if row.dtype is torch.float32:
            return [row]
        if self._last is None:
            self._last = self._memory.new_row(self._layout.size, torch.float32)
        return [row, self._last]

    def _append(self, step: int, row: Tensor, is_finite: Tensor) -> None:
        self.times.append(step)
        self._rows.append(row)
        self._finite.append(is_finite)


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
