"""Associative memories: maps from keys to values that are written while they are used."""

from abc import ABC, abstractmethod
from typing import Generic, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown

S = TypeVar("S")

Rate = float | Float[Tensor, "batch tokens"]
"""A number for all tokens, or one per token."""


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
        self, state: S, keys: Float[Tensor, "batch tokens keys"], values: Float[Tensor, "batch tokens values"]
    ) -> S:
        """Store pairs, one token after the other. Returns the new state; the given one does not change."""

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


class LinearMemory(AssociativeMemory[MemoryState]):
    """A matrix that is written by gradient descent with momentum and forgetting, one token after the other.

        import torch
        from metaopt.nested import LinearMemory, Rates

        memory = LinearMemory(keys=4, values=3)
        keys = torch.eye(4)[None]  # [batch, tokens, width]
        values = torch.randn(1, 4, 3)
        state = memory.write(memory.reset(1), keys, values, Rates(lr=0.5))
        assert memory.read(state, keys).allclose(values, atol=1e-6)

    With the surprise ∇ℓ of a pair (k, v) (Behrouz et al. 2024, arXiv:2501.00663, Eqs 9 to 14):

        S ← η S − θ ∇ℓ(M; k, v),   M ← (1 − α) M + S
        rule = delta:    ℓ = ‖M k − v‖²,     ∇ℓ = 2 (M k − v) kᵀ
        rule = hebbian:  ℓ = −2 ⟨M k, v⟩,    ∇ℓ = −2 v kᵀ

    With θ = ½, unit keys and the delta rule, a pair is stored exactly. This class is the readable reference of memories
    with more layers.

    Args:
        keys: width of a key.
        values: width of a value.
        rule: the loss of a pair.
    Raises:
        InvalidConfig: a width is below 1, or there is no such rule.
    """

    def __init__(self, keys: int, values: int, rule: Literal["delta", "hebbian"] = "delta") -> None:
        if min(keys, values) < 1:
            raise InvalidConfig(f"a memory of keys of width {keys} and values of width {values}; expected 1 or more")
        if rule not in ("delta", "hebbian"):
            raise InvalidConfig(f"rule is {shown(rule)}; expected delta or hebbian")
        self.keys, self.values, self.rule = keys, values, rule

    def reset(self, batch: int) -> MemoryState:
        """A matrix and a momentum of zeros."""
        zeros = torch.zeros(batch, self.values, self.keys)
        return MemoryState(zeros, zeros)

    def write(
        self,
        state: MemoryState,
        keys: Float[Tensor, "batch tokens keys"],
        values: Float[Tensor, "batch tokens values"],
        rates: Rates = Rates(),  # noqa: B008  # immutable
    ) -> MemoryState:
        """Store pairs, one token after the other.

        A token whose write would not be finite is left out, in its sequence alone.

        Args:
            rates: numbers, or one per token.
        Raises:
            LayoutMismatch: keys or values have another width, or other numbers of tokens.
        """
        self._check(keys, values)
        matrix, momentum = (part.to(keys) for part in state)
        lr, kept, forgotten = (torch.as_tensor(rate).to(keys).expand(keys.shape[:2]) for rate in rates)
        for token in range(keys.shape[1]):
            gradient = self._gradient(matrix, keys[:, token], values[:, token])
            surprise = _each(kept[:, token]) * momentum - _each(lr[:, token]) * gradient
            written = (1 - _each(forgotten[:, token])) * matrix + surprise
            finite = _is_finite(written) & _is_finite(surprise)
            matrix, momentum = torch.where(finite, written, matrix), torch.where(finite, surprise, momentum)
        return MemoryState(matrix, momentum)

    def read(
        self, state: MemoryState, queries: Float[Tensor, "batch tokens keys"]
    ) -> Float[Tensor, "batch tokens values"]:
        """M q."""
        return queries @ state.matrix.to(queries).mT

    def surprise(
        self,
        state: MemoryState,
        keys: Float[Tensor, "batch tokens keys"],
        values: Float[Tensor, "batch tokens values"],
    ) -> Float[Tensor, "batch tokens"]:
        """‖∇ℓ‖ of each pair at the given state: twice the norm of its error (delta) or value, times that of its key."""
        self._check(keys, values)
        errors = values if self.rule == "hebbian" else self.read(state, keys) - values
        return 2 * errors.norm(dim=-1) * keys.norm(dim=-1)

    def _gradient(self, matrix: Tensor, key: Tensor, value: Tensor) -> Float[Tensor, "batch values keys"]:
        column, target = key.unsqueeze(-1), value.unsqueeze(-1)
        error = -target if self.rule == "hebbian" else matrix @ column - target
        return 2 * error @ column.mT

    def _check(self, keys: Tensor, values: Tensor) -> None:
        if keys.shape != (*values.shape[:2], self.keys) or values.shape[2:] != (self.values,):
            raise LayoutMismatch(
                f"keys of shape {tuple(keys.shape)} and values of shape {tuple(values.shape)}; expected "
                f"[batch, tokens, {self.keys}] and [batch, tokens, {self.values}]"
            )


def _each(rate: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1"]:
    return rate[:, None, None]


def _is_finite(matrices: Float[Tensor, "batch rows columns"]) -> Bool[Tensor, "batch 1 1"]:
    return matrices.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
