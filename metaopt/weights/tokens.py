"""Weight tokens: blocks of consecutive weights, and their position features.

The Perceiver reads a flat weight vector as a sequence of weight tokens.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log, prod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .device_tables import DeviceTables
from .layout import Layout, WeightTensor

POSITION_FEATURES = 8
"""Number of position features of a token; see `TokenGrid.position_features`."""

TENSOR_FEATURES = 5
"""Number of the first of them, which state the place of the token's tensor: its relative index and its dimensions."""

_KEPT_TOKENS = 65_536
"""Largest number of tokens whose places are kept on each device (3 MB); those of more tokens are computed each time."""


class Places(NamedTuple):
    """Where tokens are.

    Attributes:
        tensor: index in the layout of the tensor of each token.
        features: position features; see `TokenGrid.position_features`.
    """

    tensor: Int[Tensor, " tokens"]
    features: Float[Tensor, "tokens features"]


class Positions(NamedTuple):
    """Where the weights of tokens are in the flat vector.

    Attributes:
        indices: index of each weight; for padding, that of the last weight of the tensor.
        mask: False for padding.
    """

    indices: Int[Tensor, "tokens width"]
    mask: Bool[Tensor, "tokens width"]


class _Piece(NamedTuple):
    """Consecutive weights of a flat vector, and the number of padding zeros after them."""

    begin: int
    end: int
    padding: int


@dataclass(frozen=True)
class TokenGrid:
    """Splits the flat vector of a layout into tokens of `width` consecutive weights.

    A token contains weights of one tensor only; the last token of a tensor is padded with zeros. In all methods,
    [first, last) is a half-open range of token indices, so that a long sequence can be processed in slices. No method
    waits for the device of its arguments.

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

    def slices(self, limit: int) -> Iterator[tuple[int, int]]:
        """Consecutive ranges [first, last) of at most `limit` tokens that cover all tokens."""
        return ((first, min(first + limit, self.count)) for first in range(0, self.count, limit))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The half-open range of indices in the flat vector that the tokens in the range [first, last) cover."""
        pieces = self._pieces(first, last)
        return pieces[0].begin, pieces[-1].end

    def cut(self, flat: Float[Tensor, "*batch weights"], first: int, last: int) -> Float[Tensor, "*batch tokens width"]:
        """The tokens in the range [first, last) of a flat vector."""
        begin, end = self.span(first, last)
        return self.cut_span(flat[..., begin:end], first, last)

    def cut_span(
        self, span: Float[Tensor, "*batch span"], first: int, last: int
    ) -> Float[Tensor, "*batch tokens width"]:
        """The tokens in the range [first, last), from the weights that they cover. A view if nothing is padded."""
        pieces = self._pieces(first, last)
        if any(piece.padding for piece in pieces):
            zeros, parts = span.new_zeros(1).expand(*span.shape[:-1], self.width), []
            for piece in pieces:
                parts.append(span[..., piece.begin - pieces[0].begin : piece.end - pieces[0].begin])
                parts.append(zeros[..., : piece.padding])
            span = torch.cat(parts, -1)
        return span.unflatten(-1, (last - first, self.width))

    def join(
        self, tokens: Float[Tensor, "*batch tokens width"], first: int, last: int
    ) -> Float[Tensor, "*batch weights"]:
        """The weights of the tokens in the range [first, last), without padding: the inverse of `cut`."""
        padded, pieces = tokens.flatten(-2), self._pieces(first, last)
        if not any(piece.padding for piece in pieces):
            return padded
        weights, position = [], 0
        for piece in pieces:
            size = piece.end - piece.begin
            weights.append(padded[..., position : position + size])
            position += size + piece.padding
        return torch.cat(weights, -1)

    def gather(
        self, flat: Float[Tensor, "*batch weights"], tokens: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "*batch tokens width"]:
        """The tokens of a flat vector with the given token indices."""
        positions = self.positions(tokens)
        return flat[..., positions.indices] * positions.mask

    def positions(self, tokens: Int[Tensor, " tokens"]) -> Positions:
        """Where the weights of some tokens are in the flat vector."""
        tensor, device = self.tensor_index(tokens), tokens.device
        first, size, offset = (self._table(name, device)[tensor] for name in ("_first_tokens", "_sizes", "_offsets"))
        within = ((tokens - first) * self.width).unsqueeze(1) + torch.arange(self.width, device=device)
        size = size.unsqueeze(1)
        return Positions(torch.minimum(within, size - 1) + offset.unsqueeze(1), within < size)

    def evenly_spaced(self, limit: int, device: torch.device | None = None) -> Int[Tensor, " tokens"]:
        """Sorted indices of all tokens, or of a sample if there are more than `limit` tokens.

        The sample has at most `limit` tokens: the first token of each tensor, as far as `limit` allows, and evenly
        spaced tokens.
        """
        if self.count <= limit:
            return torch.arange(self.count, device=device)
        steps = max(limit - len(self.counts), 1)
        spaced = np.arange(steps) * (self.count - 1) // max(steps - 1, 1)
        return torch.tensor(np.unique(np.concatenate([self._first_tokens[:limit], spaced])[:limit]), device=device)

    def tensor_index(self, tokens: Int[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
        """Index in the layout of the tensor that each token belongs to."""
        return torch.searchsorted(self._table("_first_tokens", tokens.device), tokens, right=True) - 1

    def position_features(self, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens features"]:
        """Position features of each token.

        Features 1 to 7 describe the tensor of the token:

        - relative index of the tensor in the layout, counted from the first and from the last tensor (two features);
        - one-hot encoding of its number of dimensions: at most one, two, or more (three features);
        - log(size of dimension 0) / 10 and log(product of the other sizes) / 10.

        Feature 8 is the relative position of the token in the tensor, in [0, 1).
        """
        return self.places(tokens).features

    def places(self, tokens: Int[Tensor, " tokens"]) -> Places:
        """Tensor and position features of some tokens."""
        tensor, device = self.tensor_index(tokens), tokens.device
        position = (tokens - self._table("_first_tokens", device)[tensor]) / self._table("_counts", device)[tensor]
        return Places(tensor, torch.cat([self._table("_tensor_features", device)[tensor], position.unsqueeze(1)], 1))

    def places_in(self, first: int, last: int, device: torch.device) -> Places:
        """Tensor and position features of the tokens in the range [first, last)."""
        if self.count > _KEPT_TOKENS:
            return self.places(torch.arange(first, last, device=device))
        places = self._tables.get("places", device, lambda: self.places(torch.arange(self.count, device=device)))
        return Places(places.tensor[first:last], places.features[first:last])

    def sample_places(self, limit: int, device: torch.device) -> Places:
        """Tensor and position features of the tokens of `evenly_spaced`."""
        return self._tables.get(
            ("sample places", limit), device, lambda: self.places(self.evenly_spaced(limit, device))
        )

    def sample_positions(self, limit: int, device: torch.device) -> Positions:
        """Where the weights of the tokens of `evenly_spaced` are in the flat vector."""
        return self._tables.get(
            ("sample positions", limit), device, lambda: self.positions(self.evenly_spaced(limit, device))
        )

    @cached_property
    def _tables(self) -> DeviceTables:
        return DeviceTables()

    def _table(self, name: str, device: torch.device) -> Tensor:
        """One of the arrays below, on a device."""
        return self._tables.get(name, device, lambda: torch.tensor(getattr(self, name), device=device))

    @cached_property
    def _first_tokens(self) -> Int[np.ndarray, " tensors"]:
        """Index of the first token of each tensor."""
        counts = np.array(self.counts, dtype=np.int64)
        return counts.cumsum() - counts

    @cached_property
    def _counts(self) -> Int[np.ndarray, " tensors"]:
        return np.array(self.counts, dtype=np.int64)

    @cached_property
    def _sizes(self) -> Int[np.ndarray, " tensors"]:
        return np.array([tensor.size for tensor in self.layout.tensors], dtype=np.int64)

    @cached_property
    def _offsets(self) -> Int[np.ndarray, " tensors"]:
        return np.array(self.layout.offsets, dtype=np.int64)

    @cached_property
    def _tensor_features(self) -> Float[np.ndarray, "tensors features-1"]:
        count = len(self.layout.tensors)
        features = [_features(tensor, index, count) for index, tensor in enumerate(self.layout.tensors)]
        return np.array(features, dtype=np.float32)

    def _pieces(self, first: int, last: int) -> list[_Piece]:
        """The weights of the tokens in the range, divided where there is padding."""
        pieces: list[_Piece] = []
        index = bisect_right(self._first_tokens, first) - 1
        while index < len(self.counts) and self._first_tokens[index] < last:
            offset, size, start = self.layout.offsets[index], self.layout.tensors[index].size, self._first_tokens[index]
            begin = int(max(first, start) - start) * self.width
            end = int(min(last, start + self.counts[index]) - start) * self.width
            piece = _Piece(offset + begin, offset + min(end, size), max(end - size, 0))
            if pieces and not pieces[-1].padding:
                piece = piece._replace(begin=pieces.pop().begin)
            pieces.append(piece)
            index += 1
        return pieces


@lru_cache(maxsize=32)
def token_grid(layout: Layout, width: int) -> TokenGrid:
    """The `TokenGrid` of a layout, cached because every prediction needs it."""
    return TokenGrid(layout, width)


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
