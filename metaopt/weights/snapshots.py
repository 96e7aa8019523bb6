"""The snapshots of a history as separate vectors, which may be in other memory and precision than the forecast."""

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Snapshots:
    """Snapshots of one layout, oldest first. Parts of them are read to the device of the forecast.

    A history of a large network can thus stay in main memory, in bfloat16: no more than a part of it is on the device.

        import torch
        from metaopt.weights.snapshots import Snapshots

        rows = [torch.zeros(100, dtype=torch.bfloat16), torch.ones(100)]
        Snapshots(rows, torch.device("cpu")).read(10, 20)  # float32 [2, 10]

    Args:
        rows: one vector per snapshot, or one per snapshot and history of a batch, [*batch, weights].
        device: device of the parts that are read.
        dtype: precision of the parts that are read.
    """

    def __init__(self, rows: Sequence[Tensor], device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.rows, self.device, self.dtype = rows, device, dtype

    @classmethod
    def of(cls, history: Float[Tensor, "*batch snapshots weights"]) -> Self:
        """The snapshots of one tensor, without a copy."""
        return cls(history.unbind(-2), history.device, history.dtype)

    def as_batch(self) -> Self:
        """The same snapshots, as those of a batch of one history."""
        return type(self)([row.unsqueeze(0) for row in self.rows], self.device, self.dtype)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def memory(self) -> torch.device:
        """The device that the snapshots are on."""
        return self.rows[-1].device

    def read(
        self, begin: int, end: int, indices: Sequence[int] | None = None
    ) -> Float[Tensor, "*batch snapshots span"]:
        """The weights in the range [begin, end) of some snapshots, of all by default."""
        chosen = self.rows if indices is None else [self.rows[index] for index in indices]
        return torch.stack([self._moved(row[..., begin:end]) for row in chosen], -2)

    def gather(
        self, positions: Int[Tensor, "rows columns"], indices: Sequence[int]
    ) -> Float[Tensor, "*batch snapshots rows columns"]:
        """The weights at some positions of some snapshots.

        Args:
            positions: indices in the flat vector, on the device `memory`.
        """
        flat = positions.flatten()
        gathered = [self._moved(self.rows[index].index_select(-1, flat)) for index in indices]
        return torch.stack(gathered, -2).unflatten(-1, positions.shape)

    def _moved(self, part: Tensor) -> Tensor:
        return part.to(self.device, self.dtype, non_blocking=True)
