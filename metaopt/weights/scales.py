"""The scale of each tensor in a history: mean squares and inner products of its weights and of their changes."""

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


def tensor_grams(layout: Layout, snapshots: Snapshots) -> Float[Tensor, "*batch tensors snapshots snapshots"]:
    """Inner products, per tensor, of the changes W_i − W_last of all snapshots, divided by the number of weights.

    Those of differences of any two snapshots follow from them. Large tensors are subsampled, as in `tensor_scales`.
    """
    sample = _sample(layout)
    weights = snapshots.gather(sample.positions(snapshots.memory), range(len(snapshots)))
    changes = weights - weights[..., -1:, :, :]
    return sample.inner_products(changes).movedim(-1, -3)


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
        return self._means((values * self._table("_mask", values.device)).sum(-1))

    def inner_products(self, values: Float[Tensor, "*rows n blocks weights"]) -> Float[Tensor, "*rows n n tensors"]:
        """The means over the sample of each tensor of the products of n values."""
        masked = values * self._table("_mask", values.device)
        return self._means(torch.einsum("...ibw,...jbw->...ijb", masked, masked))

    def _means(self, sums: Float[Tensor, "*rows blocks"]) -> Float[Tensor, "*rows tensors"]:
        """The mean over the sample of each tensor, from the sum of each block."""
        device = sums.device
        padded = torch.nn.functional.pad(sums, (0, 1))  # the last is 0
        return padded[..., self._table("_blocks", device)].sum(-1) / self._table("_counts", device)

    def _table(self, name: str, device: torch.device) -> Tensor:
        return self._tables.get(name, device, lambda: torch.tensor(getattr(self, name), device=device))


@lru_cache(maxsize=32)
def _sample(layout: Layout) -> _Sample:
    return _Sample(layout)
