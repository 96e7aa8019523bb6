"""Weight tokens: blocks of consecutive weights, their position features, and the scale of each tensor.

The Perceiver reads a flat weight vector as a sequence of weight tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .layout import Layout, WeightTensor

POSITION_FEATURES = 8
"""Number of position features of a token; see `TokenGrid.position_features`."""

_MAX_SCALE_SAMPLE = 16_384
"""Maximum number of weights per tensor that `tensor_scales` reads; a larger sample changes the RMS by less than 1 %."""


@dataclass(frozen=True)
class TokenGrid:
    """Splits the flat vector of a layout into tokens of `width` consecutive weights.

    A token contains weights of one tensor only; the last token of a tensor is padded with zeros. In all methods,
    [first, last) is a half-open range of token indices, so that a long sequence can be processed in slices.

        import torch
        from metaopt import Layout
        from metaopt.weights.tokens import TokenGrid

        grid = TokenGrid(Layout.of(torch.nn.Linear(5, 2)), width=8)
        tokens = grid.cut(torch.randn(12), 0, grid.count)  # [3, 8]: two tokens of the weight, one of the bias
    """

    layout: Layout
    width: int

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of tokens of each tensor, in the order of the layout."""
        return tuple(-(-tensor.size // self.width) for tensor in self.layout.tensors)

    @cached_property
    def count(self) -> int:
        """Total number of tokens."""
        return sum(self.counts)

    @cached_property
    def _first_tokens(self) -> Int[Tensor, " tensors"]:
        """Index of the first token of each tensor."""
        counts = torch.tensor(self.counts)
        return counts.cumsum(0) - counts

    def slices(self, limit: int) -> Iterator[tuple[int, int]]:
        """Consecutive ranges [first, last) of at most `limit` tokens that cover all tokens."""
        return ((first, min(first + limit, self.count)) for first in range(0, self.count, limit))

    def cut(self, flat: Float[Tensor, "*batch weights"], first: int, last: int) -> Float[Tensor, "*batch tokens width"]:
        """The tokens in the range [first, last) of a flat vector."""
        padded = []
        for begin, end, padding in self._spans(first, last):
            padded.append(torch.nn.functional.pad(flat[..., begin:end], (0, padding)))
        return torch.cat(padded, -1).unflatten(-1, (last - first, self.width))

    def join(
        self, tokens: Float[Tensor, "*batch tokens width"], first: int, last: int
    ) -> Float[Tensor, "*batch weights"]:
        """The weights of the tokens in the range [first, last), without padding: the inverse of `cut`."""
        padded, weights, position = tokens.flatten(-2), [], 0
        for begin, end, padding in self._spans(first, last):
            weights.append(padded[..., position : position + end - begin])
            position += end - begin + padding
        return torch.cat(weights, -1)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The half-open range of indices in the flat vector that the tokens in the range [first, last) cover."""
        spans = list(self._spans(first, last))
        return spans[0][0], spans[-1][1]

    def gather(
        self, flat: Float[Tensor, "*batch weights"], tokens: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "*batch tokens width"]:
        """The tokens of a flat vector with the given token indices."""
        tensor = self.tensor_index(tokens)
        offsets, sizes = torch.tensor(self.layout.offsets), torch.tensor([each.size for each in self.layout.tensors])
        indices = ((tokens - self._first_tokens[tensor]) * self.width).unsqueeze(1) + torch.arange(self.width)
        mask = indices < sizes[tensor].unsqueeze(1)  # False for padding
        return flat[..., torch.where(mask, indices + offsets[tensor].unsqueeze(1), 0)] * mask

    def evenly_spaced(self, limit: int) -> Int[Tensor, " tokens"]:
        """Sorted indices of all tokens, or of a sample if there are more than `limit` tokens.

        The sample has at most `limit` tokens: the first token of each tensor, as far as `limit` allows, and evenly
        spaced tokens.
        """
        if self.count <= limit:
            return torch.arange(self.count)
        steps = max(limit - len(self.counts), 1)
        spaced = torch.linspace(0, self.count - 1, steps, dtype=torch.float64).long()
        return torch.cat([self._first_tokens[:limit], spaced])[:limit].unique()

    def tensor_index(self, tokens: Int[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
        """Index in the layout of the tensor that each token belongs to."""
        return torch.searchsorted(self._first_tokens, tokens, right=True) - 1

    def position_features(self, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens features"]:
        """Position features of each token.

        Features 1 to 7 describe the tensor of the token:

        - relative index of the tensor in the layout, counted from the first and from the last tensor (two features);
        - one-hot encoding of its number of dimensions: at most one, two, or more (three features);
        - log(size of dimension 0) / 10 and log(product of the other sizes) / 10.

        Feature 8 is the relative position of the token in the tensor, in [0, 1).
        """
        tensor = self.tensor_index(tokens)
        counts = torch.tensor(self.counts)
        position = (tokens - self._first_tokens[tensor]) / counts[tensor]
        return torch.cat([self._tensor_features[tensor], position.unsqueeze(1)], 1)

    @cached_property
    def _tensor_features(self) -> Float[Tensor, "tensors features-1"]:
        count = len(self.layout.tensors)
        return torch.tensor([_features(tensor, index, count) for index, tensor in enumerate(self.layout.tensors)])

    def _spans(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """For each tensor with tokens in the range: begin and end in the flat vector, and number of padding zeros."""
        first_tokens = self._first_tokens.tolist()
        index = int(torch.searchsorted(self._first_tokens, first, right=True)) - 1
        while index < len(first_tokens) and first_tokens[index] < last:
            offset, size = self.layout.offsets[index], self.layout.tensors[index].size
            begin = (max(first, first_tokens[index]) - first_tokens[index]) * self.width
            end = (min(last, first_tokens[index] + self.counts[index]) - first_tokens[index]) * self.width
            yield offset + begin, offset + min(end, size), max(end - size, 0)
            index += 1


@lru_cache(maxsize=32)
def token_grid(layout: Layout, width: int) -> TokenGrid:
    """The `TokenGrid` of a layout, cached because every prediction needs it."""
    return TokenGrid(layout, width)


def tensor_scales(
    layout: Layout, snapshots: Float[Tensor, "batch snapshots weights"], rows: Sequence[int] | slice = slice(None)
) -> tuple[Float[Tensor, "batch tensors"], Float[Tensor, "batch tensors"]]:
    """Root mean square (RMS) per tensor of the last snapshot, and of its differences from the earlier snapshots.

    Large tensors are subsampled: every k-th weight is used. Snapshots that equal the last one, such as missing
    snapshots, are excluded from the RMS of the differences.

    Args:
        rows: indices of the snapshots to use, oldest first.
    Returns: RMS of the last snapshot, RMS of the differences.
    """
    weight_rms, change_rms = [], []
    for tensor, weights in zip(layout.tensors, layout.split(snapshots), strict=True):
        sample = weights[..., :: -(-tensor.size // _MAX_SCALE_SAMPLE)][:, rows]
        weight_rms.append(sample[:, -1].square().mean(1).sqrt())
        mean_squares = (sample[:, -1:] - sample[:, :-1]).square().mean(2)
        change_rms.append((mean_squares.sum(1) / (mean_squares > 0).sum(1).clamp(min=1)).sqrt())
    return torch.stack(weight_rms, 1), torch.stack(change_rms, 1)


def _features(tensor: WeightTensor, index: int, count: int) -> list[float]:
    rows = tensor.shape[0] if tensor.shape else 1
    columns = prod(tensor.shape[1:])
    return [
        index / count,
        1 - (index + 1) / count,
        float(len(tensor.shape) <= 1),
        float(len(tensor.shape) == 2),
        float(len(tensor.shape) > 2),
        log(rows) / 10,
        log(columns) / 10,
    ]
