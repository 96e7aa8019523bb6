"""Associative memories: maps from keys to values that are written while they are used."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from ..core.values import are_counts
from .left_out import begin, end
from .state_shapes import check_state

S = TypeVar("S")

Rate = float | Float[Tensor, "batch tokens"]
"""A number for all tokens, or one per token."""


class Rates(NamedTuple):
    """The rates of a write.

    Attributes:
        lr: θ, how much of the surprise of a token is stored.
        momentum: η, how much of the past surprise is kept.
        forget: α, how much of the memory is forgotten at each token.
    """

    lr: Rate = 0.5
    momentum: Rate = 0.0
    forget: Rate = 0.0

    @classmethod
    def given(cls, rates: Any) -> Self:
        """Check that rates are `Rates`.

        Raises:
            InvalidConfig: they are not.
        """
        if not isinstance(rates, cls):
            raise InvalidConfig(f"rates is {shown(rates)}; expected Rates, such as Rates(lr=0.5)")
        return rates

    def check(self) -> None:
        """Check the rates that are numbers; those of tensors could only be read by waiting for their device.

        Raises:
            InvalidConfig: `lr` is not 0 or more, or `momentum` or `forget` is not from 0 to 1.
        """
        for limit, rate in zip((sys.float_info.max, 1.0, 1.0), self, strict=True):
            if not isinstance(rate, Tensor) and not (isinstance(rate, int | float) and 0 <= rate <= limit):
                raise InvalidConfig(f"{self}; expected lr of 0 or more, momentum and forget from 0 to 1")

    def per_token(self, keys: Float[Tensor, "batch tokens keys"]) -> Float[Tensor, "batch tokens 3"]:
        """The three rates of each token, with the dtype and on the device of its key.

        Raises:
            InvalidConfig: a rate that is a number is out of its range.
            LayoutMismatch: a rate that is a tensor has other numbers of sequences or tokens.
        """
        self.check()
        shape = keys.shape[:2]
        for name, rate in self._asdict().items():
            if isinstance(rate, Tensor) and not _fits(rate, shape):
                raise LayoutMismatch(f"{name} of shape {tuple(rate.shape)}; expected one per token, {tuple(shape)}")
        given = (rate.to(keys) if isinstance(rate, Tensor) else keys.new_full(shape, rate) for rate in self)
        return torch.stack([rate.expand(shape) for rate in given], dim=-1)


class AssociativeMemory(ABC, Generic[S]):
    """Base class of memories M that map keys to values.

    A memory is pure: what it has stored is in a state, one per sequence of a batch, which `write` returns. So sequences
    do not share what they store, and a sequence that is written in pieces equals the whole one. All tensors are
    [batch, tokens, width].
    """

    @abstractmethod
    def reset(self, batch: int) -> S:
        """The state of a memory that has stored nothing.

        Args:
            batch: sequences [count].
        """

    @abstractmethod
    def write(
        self,
        state: S,
        keys: Float[Tensor, "batch tokens keys"],
        values: Float[Tensor, "batch tokens values"],
        rates: Rates | None = None,
    ) -> S:
        """Store pairs, one token after the other. Returns the new state; the given one does not change.

        Args:
            rates: numbers, or one per token; by default those of the memory.
        Raises:
            LayoutMismatch: keys or values have another width or other numbers of tokens, or the state belongs to
                another memory or to another number of sequences.
            InvalidConfig: `rates` is no `Rates`, or a number of it is out of its range.
        """

    def flush(self, state: S) -> S:
        """Store pairs that wait until a chunk is full. A memory that writes each pair at once has none."""
        return state

    @abstractmethod
    def read(self, state: S, queries: Float[Tensor, "batch tokens keys"]) -> Float[Tensor, "batch tokens values"]:
        """The values M(q) that the memory returns for queries."""

    @abstractmethod
    def surprise(
        self, state: S, keys: Float[Tensor, "batch tokens keys"], values: Float[Tensor, "batch tokens values"]
    ) -> Float[Tensor, "batch tokens"]:
        """How much each pair would change the memory: the norm of the gradient of its loss at the given state."""


class MemoryState(NamedTuple):
    """The state of a linear memory.

    Attributes:
        matrix: the map from keys to values.
        momentum: past surprise S.
    """

    matrix: Float[Tensor, "batch values keys"]
    momentum: Float[Tensor, "batch values keys"]


class LinearMemory(AssociativeMemory[MemoryState]):
    """A matrix that is written by gradient descent with momentum and forgetting, one token after the other.

        import torch
        from metaopt.nested import LinearMemory, Rates

        memory = LinearMemory(keys=4, values=3, rates=Rates(lr=0.5))
        keys = torch.eye(4)[None]  # [batch, tokens, width]
        values = torch.randn(1, 4, 3)
        state = memory.write(memory.reset(1), keys, values)
        assert memory.read(state, keys).allclose(values, atol=1e-6)

    With the surprise ∇ℓ of a pair (k, v) (Behrouz et al. 2024, arXiv:2501.00663, Eqs 9 to 14):

        S ← η S − θ ∇ℓ(M; k, v),   M ← (1 − α) M + S
        rule = delta:    ℓ = ‖M k − v‖²,     ∇ℓ = 2 (M k − v) kᵀ
        rule = hebbian:  ℓ = −2 ⟨M k, v⟩,    ∇ℓ = −2 v kᵀ

    With θ = ½, unit keys and the delta rule, a pair is stored exactly. This class is the readable reference of memories
    with more layers, such as `TitanMemory`.

    Args:
        keys: width of a key.
        values: width of a value.
        rule: the loss of a pair.
        rates: of writes that are given none.
    Raises:
        InvalidConfig: a width is below 1, a rate is out of its range, or there is no such rule.
    """

    def __init__(
        self,
        keys: int,
        values: int,
        rule: Literal["delta", "hebbian"] = "delta",
        rates: Rates = Rates(),  # noqa: B008  # immutable
    ) -> None:
        if not are_counts(keys, values):
            raise InvalidConfig(
                f"a memory of keys of width {shown(keys)} and values of width {shown(values)}; expected whole numbers "
                "of 1 or more"
            )
        if rule not in ("delta", "hebbian"):
            raise InvalidConfig(f"rule is {shown(rule)}; expected delta or hebbian")
        Rates.given(rates).check()
        self.keys, self.values, self.rule, self.rates = keys, values, rule, rates

    def reset(self, batch: int) -> MemoryState:
        """A matrix and a momentum of zeros."""
        zeros = torch.zeros(batch, self.values, self.keys)
        return MemoryState(zeros, zeros)

    def write(
        self,
        state: MemoryState,
        keys: Float[Tensor, "batch tokens keys"],
        values: Float[Tensor, "batch tokens values"],
        rates: Rates | None = None,
    ) -> MemoryState:
        """Store pairs, one token after the other.

        A token whose write would not be finite is left out, in its sequence alone.
        """
        self._check(state, keys, values)
        matrix, momentum = (part.to(keys) for part in state)
        chosen = self.rates if rates is None else Rates.given(rates)
        tokens = torch.cat([keys, values, chosen.per_token(keys)], dim=-1)
        for token in range(keys.shape[1]):
            inputs, gate = begin((matrix, momentum, tokens[:, token]))
            (matrix, momentum), _ = end(gate, self._written(*inputs), (matrix, momentum))
        return MemoryState(matrix, momentum)

    def read(
        self, state: MemoryState, queries: Float[Tensor, "batch tokens keys"]
    ) -> Float[Tensor, "batch tokens values"]:
        """M q.

        Raises:
            LayoutMismatch: queries have another width, or the state belongs to another memory or to another number of
                sequences.
        """
        if queries.dim() != 3 or queries.shape[2] != self.keys:
            raise LayoutMismatch(f"queries of shape {tuple(queries.shape)}; expected [batch, tokens, {self.keys}]")
        self._check_state(state, queries.shape[0])
        return queries @ state.matrix.to(queries).mT

    def surprise(
        self,
        state: MemoryState,
        keys: Float[Tensor, "batch tokens keys"],
        values: Float[Tensor, "batch tokens values"],
    ) -> Float[Tensor, "batch tokens"]:
        """‖∇ℓ‖ of each pair at the given state: twice the norm of its error (delta) or value, times that of its key."""
        self._check(state, keys, values)
        errors = values if self.rule == "hebbian" else self.read(state, keys) - values
        return 2 * errors.norm(dim=-1) * keys.norm(dim=-1)

    def _written(self, matrix: Tensor, momentum: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Matrix and momentum after one token with its key, value and rates, finite or not."""
        column, target, rates = token.unsqueeze(-1).split([self.keys, self.values, len(Rates._fields)], dim=1)
        lr, kept, forgotten = rates.unsqueeze(-1).unbind(1)
        error = -target if self.rule == "hebbian" else matrix @ column - target
        surprise = kept * momentum - lr * (2 * error @ column.mT)
        return (1 - forgotten) * matrix + surprise, surprise

    def _check(self, state: MemoryState, keys: Tensor, values: Tensor) -> None:
        check_pairs(keys, values, (self.keys, self.values))
        self._check_state(state, keys.shape[0])

    def _check_state(self, state: MemoryState, sequences: int) -> None:
        expected = (sequences, self.values, self.keys)
        check_state(state, MemoryState, (expected, expected), "as of `reset` of this memory for these sequences")


def _fits(rate: Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor is one rate per token, or becomes that by expansion."""
    sizes = zip(reversed(rate.shape), reversed(shape), strict=False)
    return rate.dim() <= len(shape) and all(size in (1, count) for size, count in sizes)


def check_pairs(keys: Tensor, values: Tensor, widths: tuple[int, int]) -> None:
    """Check the shapes of pairs.

    Raises:
        LayoutMismatch: keys or values have another width, or other numbers of tokens.
    """
    if keys.shape != (*values.shape[:2], widths[0]) or values.shape[2:] != widths[1:]:
        raise LayoutMismatch(
            f"keys of shape {tuple(keys.shape)} and values of shape {tuple(values.shape)}; expected "
            f"[batch, tokens, {widths[0]}] and [batch, tokens, {widths[1]}]"
        )
