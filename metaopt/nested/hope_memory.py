"""The memory of a HOPE block: a sequence layer that reads what earlier tokens have written."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidConfig
from ..core.text import shown
from .carried_memory import MemoryLayer, Parts, Tokens
from .memory import AssociativeMemory, LinearMemory, MemoryState, Rates
from .self_modifier import ModifierState, SelfModifier
from .self_writes import recall, writes_of
from .sizes import check_sizes
from .titan import TitanMemory

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
) -> MemoryLayer:
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
    check_sizes(width=width, heads=heads, chunk=chunk)
    if kind != "self":
        return PairLayer(kind, width, heads, chunk, momentum, decay)
    if not decay:
        raise InvalidConfig("the memory self always decays; for decay=false set memory to linear or titan")
    return SelfLayer(SelfModifier(width, heads=heads, chunk=chunk, adaptive=self_modifying))


class PairLayer(MemoryLayer):
    """A memory that stores a pair of each token, with projections of queries, keys, values and rates.

        q = W_q x / ‖W_q x‖,   k = W_k x / ‖W_k x‖,   v = W_v x,   θ, η, α = sigmoid(A x + b)

    The norms are those of a head. Tokens of a chunk read M_c(q), where M_c has stored all chunks before it, and are
    written afterwards. So the first chunk of a sequence reads an empty memory, unless the memory is carried.
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

    def initial(self, rows: int) -> Parts:
        """An empty memory of each sequence."""
        if not self.is_folded:
            return self._parts(self.memory.reset(rows))
        own = self.queries.out_features // self.heads
        zeros = self.first_rates.new_zeros(rows, self.heads, own, own)  # on the device, without waiting for it
        return zeros, zeros

    def run(self, inputs: Tokens, start: Parts, write: bool) -> tuple[Tokens, Parts]:
        """What the memory returns for each token, and the memory after the last one."""
        state, read = self._state(start), []
        for queries, (keys, values, rates), is_last in self._chunks(inputs):
            read.append(self.memory.read(state, queries))
            if write or not is_last:  # else it is never read
                state = self.memory.write(state, keys, values, rates)
        return self._unfold(torch.cat(read, dim=1)), self._parts(self.memory.flush(state))

    def surprise(self, inputs: Tokens) -> Float[Tensor, "batch tokens"]:
        """‖∇ℓ‖ of what each token writes, over all heads, in the memory at the start of its chunk."""
        state, found = self._state(self.start(len(inputs))), []
        for _, (keys, values, rates), _ in self._chunks(inputs):
            found.append(self.memory.surprise(state, keys, values))
            state = self.memory.write(state, keys, values, rates)
        return self._unfold(torch.cat(found, dim=1).unsqueeze(-1)).norm(dim=-1)

    def _chunks(self, inputs: Tokens) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor, Rates], bool]]:
        """The queries of each chunk of tokens, what it writes, and whether it is the last one."""
        queries, keys = (self._fold(self._unit(project(inputs))) for project in (self.queries, self.keys))
        values, rates, tokens = self._fold(self.values(inputs)), self._rates(inputs), inputs.shape[1]
        for start in range(0, tokens, self.chunk):
            part = slice(start, start + self.chunk)
            write = (keys[:, part], values[:, part], Rates(*rates[:, :, part]))
            yield queries[:, part], write, start + self.chunk >= tokens

    def _parts(self, state: Any) -> Parts:
        if not self.is_folded:
            return *state.weights, *state.momentum
        return tuple(part.unflatten(0, (-1, self.heads)) for part in state)

    def _state(self, parts: Parts) -> Any:
        if self.is_folded:
            return MemoryState(*(part.flatten(0, 1) for part in parts))
        layers = len(parts) // 2
        return self.memory.reset(len(parts[0]))._replace(weights=parts[:layers], momentum=parts[layers:])

    def extra_repr(self) -> str:
        """The configuration."""
        return f"heads={self.heads}, chunk={self.chunk}, momentum={self.momentum}, decay={self.decay}"

    def _rates(self, inputs: Tokens) -> Float[Tensor, "3 rows tokens"]:
        rates = (self.rates(inputs) + self.first_rates).sigmoid()
        # filled on the device, which the host would wait for if it copied a list
        used = torch.cat([rates.new_full((1,), float(is_used)) for is_used in (True, self.momentum, self.decay)])
        return (rates * used).repeat_interleave(self.heads if self.is_folded else 1, dim=0).movedim(-1, 0)

    def _unit(self, tokens: Tokens) -> Tokens:
        return functional.normalize(tokens.unflatten(-1, (self.heads, -1)), dim=-1).flatten(-2)

    def _fold(self, tokens: Tokens) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1) if self.is_folded else tokens

    def _unfold(self, rows: Tensor) -> Tokens:
        return rows.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2) if self.is_folded else rows


class SelfLayer(MemoryLayer):
    """A `SelfModifier`."""

    def __init__(self, memory: SelfModifier) -> None:
        super().__init__()
        self.memory = memory

    def initial(self, rows: int) -> Parts:
        """The initial memories of each sequence."""
        return tuple(layer for layers in self.memory.reset(rows).now.values() for layer in layers)

    def run(self, inputs: Tokens, start: Parts, write: bool) -> tuple[Tokens, Parts]:
        """What the memory returns for each token, and all memories after the last one."""
        outputs, state = self.memory(inputs, self._state(start))
        return outputs, tuple(layer for layers in state.now.values() for layer in layers)

    def surprise(self, inputs: Tokens) -> Float[Tensor, "batch tokens"]:
        """‖∇ℓ‖ of the pair of each token in the memory that is read, at the start of its chunk."""
        state, found = self._state(self.start(len(inputs))), []
        for part in inputs.split(self.memory.chunk, dim=1):
            found.append(self._at(state, part))
            _, state = self.memory(part, state)
        return torch.cat(found, dim=1)

    def _state(self, parts: Parts) -> ModifierState:
        state, left = self.memory.reset(len(parts[0])), iter(parts)
        memories = {name: tuple(next(left) for _ in layers) for name, layers in state.now.items()}
        return state._replace(start=memories, now=memories)

    def _at(self, state: ModifierState, part: Tokens) -> Float[Tensor, "batch tokens"]:
        """The surprise of tokens at the start of a chunk."""
        layer, inputs = self.memory, part.unflatten(-1, (self.memory.heads, -1)).transpose(1, 2)
        made = {name: tuple(layer.initial[name].parameters()) for name in layer.initial} | state.start
        keys, values = functional.normalize(recall(made["key"], inputs), dim=-1), recall(made["value"], inputs)
        own = recall(made["memory"], values) if layer.adaptive else values
        write = writes_of(made["memory"], keys, own, layer.objective, layer.safeguards)
        is_regression = layer.objective == "regression"
        errors = [
            (recalled if is_regression else 0.0) - value
            for recalled, value in zip(write.recalled, write.values, strict=True)
        ]
        return torch.cat(errors, dim=-1).norm(dim=-1).norm(dim=1)
