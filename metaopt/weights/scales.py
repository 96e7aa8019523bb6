"""The scale of each tensor in a history: root mean squares of its weights and of their changes."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .device_tables import DeviceTables
from .layout import Layout
from .snapshots import Snapshots

_MAX_SAMPLE = 16_384
"""Maximum number of weights per tensor that `tensor_scales` reads; a larger sample changes the RMS by less than 1 %."""

_BLOCK = 64
"""Weights of one tensor that are summed at once."""


def tensor_scales(
    layout: Layout, snapshots: Snapshots, indices: Sequence[int] | None = None
) -> tuple[Float[Tensor, "*batch tensors"], Float[Tensor, "*batch tensors"]]:
    """Root mean square (RMS) per tensor of the last snapshot, and of its differences from the earlier snapshots.

    Large tensors are subsampled: every k-th weight is used. Snapshots that equal the last one, such as missing
    snapshots, are excluded from the RMS of the differences. The number of operations does not depend on the number of
    tensors.

    Args:
        indices: the snapshots to use, oldest first; all by default.
    Returns: RMS of the last snapshot, RMS of the differences.
    """
    sample = _sample(layout)
    chosen = range(len(snapshots)) if indices is None else indices
    weights = snapshots.gather(sample.positions(snapshots.memory), chosen)
    last = weights[..., -1:, :, :]
    mean_squares = sample.means(torch.cat([last - weights[..., :-1, :, :], last], -3).square())
    changes = mean_squares[..., :-1, :]
    change = changes.sum(-2) / (changes > 0).sum(-2).clamp(min=1)
    return mean_squares[..., -1, :].sqrt(), change.sqrt()


class _Sample:
    """Every k-th weight of each tensor, in blocks of weights of one tensor."""

    def __init__(self, layout: Layout) -> None:
        self._tables = DeviceTables()
        sizes = np.array([tensor.size for tensor in layout.tensors], dtype=np.int64)
        steps = -(-sizes // _MAX_SAMPLE)
        self._counts = -(-sizes // steps)
        blocks = -(-self._counts // _BLOCK)
        ends = blocks.cumsum()
        owner = np.repeat(np.arange(len(sizes)), blocks)
        within = (np.arange(ends[-1]) - (ends - blocks)[owner])[:, None] * _BLOCK + np.arange(_BLOCK)
        counts = self._counts[owner, None]
        self._mask = within < counts
        self._positions = np.array(layout.offsets)[owner, None] + np.minimum(within, counts - 1) * steps[owner, None]
        number = np.arange(blocks.max())
        self._blocks = np.where(number < blocks[:, None], (ends - blocks)[:, None] + number, ends[-1])

    def positions(self, device: torch.device) -> Int[Tensor, "blocks weights"]:
        """Index of each sampled weight in the flat vector. Blocks are padded with the last weight of the tensor."""
        return self._table("_positions", device)

    def means(self, values: Float[Tensor, "*rows blocks weights"]) -> Float[Tensor, "*rows tensors"]:
        """The mean over the sample of each tensor."""
        device = values.device
        sums = torch.nn.functional.pad((values * self._table("_mask", device)).sum(-1), (0, 1))  # the last is 0
        return sums[..., self._table("_blocks", device)].sum(-1) / self._table("_counts", device)

    def _table(self, name: str, device: torch.device) -> Tensor:
        return self._tables.get(name, device, lambda: torch.tensor(getattr(self, name), device=device))


@lru_cache(maxsize=32)
def _sample(layout: Layout) -> _Sample:
    return _Sample(layout)
