"""The memory of a HOPE block: a sequence layer that reads what earlier tokens have written."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidConfig
from ..core.text import shown
from .memory import AssociativeMemory, LinearMemory, Rates
from .self_modifier import SelfModifier
from .titan import TitanMemory

Tokens = Float[Tensor, "batch tokens width"]

MEMORIES = ("linear", "titan", "self")

_FIRST_RATES = {"linear": Rates(lr=0.25, momentum=0.1, forget=0.01), "titan": Rates(lr=0.05, momentum=0.5, forget=0.01)}


def memory_layer(
    kind: str,
    width: int,
    heads: int,
    chunk: int,
    momentum: bool = True,
    decay: bool = True,
    self_modifying: bool = True,
) -> nn.Module:
    """Build a layer that maps tokens to what a memory returns for them.

    Args:
        kind: "linear" and "titan" are memories of pairs (`PairLayer`), "self" is a `SelfModifier`.
        width: of inputs and outputs; `heads` divides it.
        heads: parts of the width, each with a memory of its own.
        chunk: tokens that are written together [tokens].
        momentum: whether past surprise is kept; "self" has no momentum.
        decay: whether the memory forgets.
        self_modifying: whether keys, values and rates of "self" adapt.
    Raises:
        InvalidConfig: there is no such memory, it has not this part, or a size is out of its range.
    """
    if kind not in MEMORIES:
        raise InvalidConfig(f"memory is {shown(kind)}; expected one of {', '.join(MEMORIES)}")
    if kind != "self":
        return PairLayer(kind, width, heads, chunk, momentum, decay)
    if not decay:
        raise InvalidConfig("the memory self always decays; for decay=false set memory to linear or titan")
    return _SelfLayer(SelfModifier(width, heads=heads, chunk=chunk, adaptive=self_modifying))


class PairLayer(nn.Module):
    """A memory that stores a pair of each token, with projections of queries, keys, values and rates.

        q = W_q x / ‖W_q x‖,   k = W_k x / ‖W_k x‖,   v = W_v x,   θ, η, α = sigmoid(A x + b)

    The norms are those of a head. Tokens of a chunk read M_c(q), where M_c has stored all chunks before it, and are
    written afterwards. So the first chunk of a sequence reads an empty memory.
    """

    def __init__(self, kind: str, width: int, heads: int, chunk: int, momentum: bool, decay: bool) -> None:
        super().__init__()
        self.heads, self.chunk, self.momentum, self.decay = heads, chunk, momentum, decay
        self.queries, self.keys, self.values = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.rates = nn.Linear(width, 3, bias=False)
        self.first_rates = nn.Parameter(torch.tensor(_FIRST_RATES[kind]).logit())
        self.is_folded = kind == "linear"  # its heads are sequences of their own
        own = width // heads
        self.memory: AssociativeMemory[Any] = (
            LinearMemory(own, own) if self.is_folded else TitanMemory(width, heads=heads, chunk=chunk)
        )

    def forward(self, inputs: Tokens) -> Tokens:
        """What the memory returns for each token."""
        queries, keys = (self._fold(self._unit(project(inputs))) for project in (self.queries, self.keys))
        values, rates = self._fold(self.values(inputs)), self._rates(inputs)
        state, outputs, tokens = self.memory.reset(len(queries)), [], inputs.shape[1]
        for start in range(0, tokens, self.chunk):
            part = slice(start, start + self.chunk)
            outputs.append(self.memory.read(state, queries[:, part]))
            if start + self.chunk < tokens:  # what the last chunk would write is never read
                state = self.memory.write(state, keys[:, part], values[:, part], Rates(*rates[:, :, part]))
        return self._unfold(torch.cat(outputs, dim=1))

    def extra_repr(self) -> str:
        """The configuration."""
        return f"heads={self.heads}, chunk={self.chunk}, momentum={self.momentum}, decay={self.decay}"

    def _rates(self, inputs: Tokens) -> Float[Tensor, "3 rows tokens"]:
        rates = (self.rates(inputs) + self.first_rates).sigmoid()
        used = rates.new_tensor([1.0, float(self.momentum), float(self.decay)])
        return (rates * used).repeat_interleave(self.heads if self.is_folded else 1, dim=0).movedim(-1, 0)

    def _unit(self, tokens: Tokens) -> Tokens:
        return functional.normalize(tokens.unflatten(-1, (self.heads, -1)), dim=-1).flatten(-2)

    def _fold(self, tokens: Tokens) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1) if self.is_folded else tokens

    def _unfold(self, rows: Tensor) -> Tokens:
        return rows.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2) if self.is_folded else rows


class _SelfLayer(nn.Module):
    """A `SelfModifier` that begins each sequence anew."""

    def __init__(self, memory: SelfModifier) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, inputs: Tokens) -> Tokens:
        return self.memory(inputs)[0]
