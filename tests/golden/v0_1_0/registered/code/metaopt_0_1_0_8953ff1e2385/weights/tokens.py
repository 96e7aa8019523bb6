"""Flat weights as weight tokens: pieces of one tensor each, with features that describe their place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import log, prod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .layout import Layout, WeightTensor

PLACE_FEATURES = 8
"""How many numbers describe a token's place."""

_SCALE_SAMPLE = 16_384
"""Weights of one tensor that its scale is measured on: more would change it by less than 1 %."""


@dataclass(frozen=True)
class TokenGrid:
    """Cuts the flat vector of a layout into tokens of `width` consecutive weights.

    No token crosses a tensor: the last one of each tensor is filled up with zeros. Everything works on any run of
    tokens, so that a long sequence can be handled in slices and none of it has to exist as a whole.
    """

    layout: Layout
    width: int

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Tokens per tensor."""
        return tuple(-(-tensor.size // self.width) for tensor in self.layout.tensors)

    @cached_property
    def count(self) -> int:
        """Tokens in all."""
        return sum(self.counts)

    @cached_property
    def _firsts(self) -> Int[Tensor, " tensors"]:
        counts = torch.tensor(self.counts)
        return counts.cumsum(0) - counts

    def slices(self, limit: int) -> Iterator[tuple[int, int]]:
        """Runs of at most `limit` tokens that cover all of them in order."""
        return ((first, min(first + limit, self.count)) for first in range(0, self.count, limit))

    def cut(self, flat: Float[Tensor, "*batch weights"], first: int, last: int) -> Float[Tensor, "*batch tokens width"]:
        """The tokens from `first` up to, not including, `last`."""
        pieces = []
        for begin, end, padding in self._spans(first, last):
            pieces.append(torch.nn.functional.pad(flat[..., begin:end], (0, padding)))
        return torch.cat(pieces, -1).unflatten(-1, (last - first, self.width))

    def join(
        self, tokens: Float[Tensor, "*batch tokens width"], first: int, last: int
    ) -> Float[Tensor, "*batch weights"]:
        """The flat weights that the tokens from `first` up to `last` stand for: undoes `cut`."""
        padded, pieces, position = tokens.flatten(-2), [], 0
        for begin, end, padding in self._spans(first, last):
            pieces.append(padded[..., position : position + end - begin])
            position += end - begin + padding
        return torch.cat(pieces, -1)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where in the flat vector the tokens from `first` up to `last` begin and end."""
        spans = list(self._spans(first, last))
        return spans[0][0], spans[-1][1]

    def pick(
        self, flat: Float[Tensor, "*batch weights"], tokens: Int[Tensor, " tokens"]
    ) -> Float[Tensor, "*batch tokens width"]:
        """Any tokens, by number."""
        owner = self.owner(tokens)
        offsets, sizes = torch.tensor(self.layout.offsets), torch.tensor([t.size for t in self.layout.tensors])
        inside = ((tokens - self._firsts[owner]) * self.width).unsqueeze(1) + torch.arange(self.width)
        there = inside < sizes[owner].unsqueeze(1)
        return flat[..., torch.where(there, inside + offsets[owner].unsqueeze(1), 0)] * there

    def spread(self, limit: int) -> Int[Tensor, " tokens"]:
        """At most `limit` token numbers, evenly spread; every tensor has at least one while there is room."""
        if self.count <= limit:
            return torch.arange(self.count)
        others = max(limit - len(self.counts), 1)
        even = torch.linspace(0, self.count - 1, others, dtype=torch.float64).long()
        return torch.cat([self._firsts[:limit], even])[:limit].unique()

    def owner(self, tokens: Int[Tensor, " tokens"]) -> Int[Tensor, " tokens"]:
        """The number of the tensor that each token belongs to."""
        return torch.searchsorted(self._firsts, tokens, right=True) - 1

    def place(self, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens features"]:
        """Features of each token's place: depth from both ends, kind of tensor, sizes, position inside it."""
        owner = self.owner(tokens)
        counts = torch.tensor(self.counts)
        position = (tokens - self._firsts[owner]) / counts[owner]
        return torch.cat([self._tensor_features[owner], position.unsqueeze(1)], 1)

    @cached_property
    def _tensor_features(self) -> Float[Tensor, "tensors features-1"]:
        total = len(self.layout.tensors)
        return torch.tensor([_describe(tensor, number, total) for number, tensor in enumerate(self.layout.tensors)])

    def _spans(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """For each tensor that the tokens touch: begin and end in the flat vector, and the zeros that follow."""
        firsts = self._firsts.tolist()
        number = int(torch.searchsorted(self._firsts, first, right=True)) - 1
        while number < len(firsts) and firsts[number] < last:
            offset, size = self.layout.offsets[number], self.layout.tensors[number].size
            begin = (max(first, firsts[number]) - firsts[number]) * self.width
            end = (min(last, firsts[number] + self.counts[number]) - firsts[number]) * self.width
            yield offset + begin, offset + min(end, size), max(end - size, 0)
            number += 1


@lru_cache(maxsize=32)
def token_grid(layout: Layout, width: int) -> TokenGrid:
    """The grid of a layout; kept, because the same layout comes again at every prediction."""
    return TokenGrid(layout, width)


def tensor_scales(
    layout: Layout, snapshots: Float[Tensor, "batch snapshots weights"], rows: Sequence[int] | slice = slice(None)
) -> tuple[Float[Tensor, "batch tensors"], Float[Tensor, "batch tensors"]]:
    """Root mean square of each tensor's last snapshot, and of its differences to the older ones.

    Measured on an even sample of large tensors. An older snapshot that equals the last one counts as absent.

    Args:
        rows: which of the snapshots are meant, the last one of them last.
    """
    sizes, movements = [], []
    for tensor, piece in zip(layout.tensors, layout.split(snapshots), strict=True):
        sample = piece[..., :: -(-tensor.size // _SCALE_SAMPLE)][:, rows]
        sizes.append(sample[:, -1].square().mean(1).sqrt())
        energies = (sample[:, -1:] - sample[:, :-1]).square().mean(2)
        movements.append((energies.sum(1) / (energies > 0).sum(1).clamp(min=1)).sqrt())
    return torch.stack(sizes, 1), torch.stack(movements, 1)


def _describe(tensor: WeightTensor, number: int, total: int) -> list[float]:
    rows = tensor.shape[0] if tensor.shape else 1
    columns = prod(tensor.shape[1:])
    return [
        number / total,
        1 - (number + 1) / total,
        float(len(tensor.shape) <= 1),
        float(len(tensor.shape) == 2),
        float(len(tensor.shape) > 2),
        log(rows) / 10,
        log(columns) / 10,
    ]
