"""A memory with several layers, written by gradient descent."""

import logging
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core.errors import InvalidConfig
from ..core.text import shown
from ..core.values import are_counts
from .left_out import begin, end
from .memory import AssociativeMemory, Rates, check_pairs
from .state_shapes import check_state
from .titan_library import Design, gradients_of, library_memory, mlp

logger = logging.getLogger(__name__)

Layers = tuple[Float[Tensor, "batch heads inputs outputs"], ...]


class TitanState(NamedTuple):
    """The state of a `TitanMemory`, one per sequence.

    Attributes:
        weights: the layers of the memory.
        momentum: past surprise S, layer by layer.
        waiting: keys, values and rates of the tokens of a chunk that is not full; nothing of them is stored yet.
        stored: tokens that were stored [count].
    """

    weights: Layers
    momentum: Layers
    waiting: Float[Tensor, "batch tokens columns"]
    stored: Int[Tensor, " batch"]


class TitanMemory(nn.Module, AssociativeMemory[TitanState]):
    """An MLP whose weights store pairs, written by gradient descent with momentum and forgetting, chunk by chunk.

        import torch
        from metaopt.nested import Rates, TitanMemory

        memory = TitanMemory(width=8, depth=2, chunk=4, rates=Rates(lr=0.1, momentum=0.5, forget=0.01))
        keys, values = torch.randn(2, 1, 10, 8)  # [batch, tokens, width]
        state = memory.write(memory.reset(1), keys, values)
        assert state.stored.tolist() == [8] and state.waiting.shape[1] == 2
        recalled = memory.read(memory.flush(state), keys)

    With M an MLP without biases, GELU between its layers, and the pairs (k_t, v_t) of one chunk:

        S ← η S − clip(Σ_t θ_t ∇ℓ(M; k_t, v_t)),   M ← (1 − α) M + S,   ℓ(M; k, v) = ‖M(k) − v‖²

    All gradients of a chunk are those at its start. η and α act once per chunk and are the means over its tokens. With
    one layer, chunks of one token and no clipping it is `LinearMemory` with the delta rule.

    The parameters are the weights of an empty memory and, with `learned`, the gates of the rates, so a network that
    contains the memory trains them. The last layer begins at zero: an empty memory that was not trained returns zeros.

    Tokens wait in the state until their chunk is full. So a sequence that is shorter than a chunk stores nothing before
    `flush`; the first such write logs a warning. A chunk whose write would not be finite is left out, in its sequence
    alone.

    Args:
        width: of keys and of values; `heads` divides it.
        depth: layers; 1 is a matrix.
        expansion: width of a hidden layer over that of a head.
        heads: memories, each for its part of the width.
        chunk: tokens that are written together [tokens].
        rates: of writes that are given none; with `learned`, those of the untrained gates.
        learned: whether the rates come from the key, through gates: θ, η, α = sigmoid(A k + b), one of each per head.
        max_grad_norm: largest norm of what the tokens of one chunk add to S, per head; None does not clip.
    Raises:
        InvalidConfig: a size or a rate is out of its range, or titans-pytorch is missing.
    References: Behrouz et al. 2024, arXiv:2501.00663, Eqs 8 to 14. Departs: there η and α act at each token of a chunk.
    """

    def __init__(
        self,
        width: int,
        depth: int = 2,
        expansion: int = 2,
        heads: int = 1,
        chunk: int = 16,
        rates: Rates = Rates(lr=0.1, momentum=0.5, forget=0.01),  # noqa: B008  # immutable
        learned: bool = False,
        max_grad_norm: float | None = 1.0,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "depth": depth, "expansion": expansion, "heads": heads, "chunk": chunk}
        if not are_counts(*sizes.values()) or width % heads:
            raise InvalidConfig(
                f"sizes of a memory {shown(sizes)}; expected whole numbers of 1 or more, heads that divide the width"
            )
        if max_grad_norm is not None and not (isinstance(max_grad_norm, int | float) and max_grad_norm > 0):
            raise InvalidConfig(f"max_grad_norm is {shown(max_grad_norm)}; expected more than 0, or None")
        _check_rates(rates, learned)
        self.width, self.heads, self.chunk, self.rates = width, heads, chunk, rates
        self._design = Design(width, depth, expansion, heads, chunk, max_grad_norm)
        self.initial = nn.ParameterList(torch.empty(heads, *shape) for shape in self._design.layers)
        self.gates = nn.Linear(width, 3 * heads) if learned else None
        self._has_warned = False
        library_memory(self._design)  # an error here if the package is missing
        self._initialize()

    def reset(self, batch: int) -> TitanState:
        """The state with the initial weights, and without momentum."""
        weights = tuple(layer.expand(batch, *layer.shape) for layer in self.initial)
        momentum = tuple(torch.zeros_like(layer) for layer in weights)
        waiting = weights[0].new_zeros(batch, 0, self._design.columns)
        stored = torch.zeros(batch, dtype=torch.int64, device=waiting.device)
        return TitanState(weights, momentum, waiting, stored)

    def write(
        self,
        state: TitanState,
        keys: Float[Tensor, "batch tokens width"],
        values: Float[Tensor, "batch tokens width"],
        rates: Rates | None = None,
    ) -> TitanState:
        """Store the pairs of all chunks that become full; the others wait in the state."""
        self._check(state, keys, values)
        columns = torch.cat([keys, values, self._rates(keys, rates)], dim=-1)
        waiting = torch.cat([state.waiting.to(keys), columns], dim=1)
        full = waiting.shape[1] // self.chunk * self.chunk
        if keys.shape[1] and not full and not self._has_warned:
            logger.warning(
                "nothing is stored yet: %d tokens wait until the chunk of %d is full; call `flush` at the end of a "
                "sequence, or use a smaller chunk",
                waiting.shape[1],
                self.chunk,
            )
            self._has_warned = True
        for start in range(0, full, self.chunk):
            state = self._store(state, waiting[:, start : start + self.chunk], self.chunk)
        return state._replace(waiting=waiting[:, full:])

    def flush(self, state: TitanState) -> TitanState:
        """Store the tokens that wait, as a chunk that is shorter than others."""
        self._check_state(state)
        count = state.waiting.shape[1]
        if not count:
            return state
        # Tokens with the mean of all rates and θ = 0 fill the chunk; they change neither the gradient nor η and α.
        filling = state.waiting.mean(1, keepdim=True).repeat(1, self.chunk - count, 1)
        filling[..., self._design.rate(0)] = 0.0
        stored = self._store(state, torch.cat([state.waiting, filling], dim=1), count)
        return stored._replace(waiting=state.waiting[:, :0])

    def read(
        self, state: TitanState, queries: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """M(q), without the tokens that wait."""
        self._check(state, queries, queries)
        values = mlp(self._for_library(state.weights, queries), self._split(queries).flatten(0, 1))
        return values.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)

    def surprise(
        self,
        state: TitanState,
        keys: Float[Tensor, "batch tokens width"],
        values: Float[Tensor, "batch tokens width"],
    ) -> Float[Tensor, "batch tokens"]:
        """‖∇ℓ‖ of each pair at the given state, over all layers and heads, not clipped."""
        self._check(state, keys, values)
        tokens = keys.shape[1]
        pairs = [self._split(part).flatten(0, 2).unsqueeze(1) for part in (keys, values)]
        layers = {
            name: layer.repeat_interleave(tokens, dim=0)
            for name, layer in self._for_library(state.weights, keys).items()
        }
        gradients, _ = gradients_of(layers, pairs[0], torch.ones_like(pairs[0][..., 0]), pairs[1])
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        return norms.view(keys.shape[0], self.heads, tokens).norm(dim=1)

    def extra_repr(self) -> str:
        """The sizes."""
        return ", ".join(f"{name}={value}" for name, value in self._design._asdict().items())

    def _initialize(self) -> None:
        for layer in self.initial[:-1]:
            for head in layer:
                nn.init.xavier_uniform_(head)
        nn.init.zeros_(self.initial[-1])
        if self.gates is not None:
            nn.init.zeros_(self.gates.weight)
            with torch.no_grad():
                start = torch.tensor(self.rates).logit().repeat_interleave(self.heads)
                self.gates.bias.copy_(start)

    def _rates(self, keys: Tensor, rates: Rates | None) -> Float[Tensor, "batch tokens rates"]:
        if rates is None and self.gates is not None:
            return self.gates(keys).sigmoid()
        chosen = self.rates if rates is None else Rates.given(rates)
        return chosen.per_token(keys).repeat_interleave(self.heads, dim=-1)

    def _store(self, state: TitanState, part: Tensor, tokens: int) -> TitanState:
        """Write one full chunk of which the first `tokens` are those of the user."""
        if not len(part):
            return state  # the library needs a sequence
        old, depth = (*state.weights, *state.momentum), len(state.weights)
        (part, *layers), gate = begin((part, *old))
        stored, valid = end(gate, self._written(part, tuple(layers)), old)
        return TitanState(stored[:depth], stored[depth:], state.waiting, state.stored + tokens * valid)

    def _written(self, part: Tensor, layers: Layers) -> Layers:
        """Weights and momentum after one full chunk, finite or not."""
        views = part.expand(2, *part.shape)  # its keys and its values come from the same columns
        depth = len(layers) // 2
        before, past = self._for_library(layers[:depth], part), self._for_library(layers[depth:], part)
        orders = {name: layer.unsqueeze(0) for name, layer in past.items()}  # momentum of the first order, the only one
        _, after = library_memory(self._design).store_memories(views, before, (before, orders), return_surprises=False)
        written = (*after.states[0].values(), *(orders[0] for orders in after.states[1].values()))
        return tuple(layer.unflatten(0, (-1, self.heads)) for layer in written)

    def _split(self, tokens: Tensor) -> Float[Tensor, "batch heads tokens head_width"]:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _for_library(self, layers: Layers, like: Tensor) -> dict[str, Tensor]:
        """Layers by their names in the library, with batch and heads in one dimension."""
        return {f"weights.{number}": layer.to(like).flatten(0, 1) for number, layer in enumerate(layers)}

    def _check(self, state: TitanState, keys: Tensor, values: Tensor) -> None:
        check_pairs(keys, values, (self.width, self.width))
        self._check_state(state, keys.shape[0])

    def _check_state(self, state: TitanState, sequences: int | None = None) -> None:
        waits = getattr(state, "waiting", None)
        rows, count = waits.shape[:2] if isinstance(waits, Tensor) and waits.dim() == 3 else (0, self.chunk)
        sequences = rows if sequences is None else sequences
        layers = tuple((sequences, self.heads, *shape) for shape in self._design.layers)
        waiting = (sequences, count if count < self.chunk else f"fewer than {self.chunk}", self._design.columns)
        source = f"as of `reset` of this memory ({self.extra_repr()}) for these sequences"
        check_state(state, TitanState, (layers, layers, waiting, (sequences,)), source)


def _check_rates(rates: Rates, learned: bool) -> None:
    if any(isinstance(rate, Tensor) for rate in Rates.given(rates)):
        raise InvalidConfig("rates of a memory that are tensors; expected numbers. `write` takes one per token")
    rates.check()
    if learned and not all(0 < rate < 1 for rate in rates):
        raise InvalidConfig(f"gates that begin at {rates}; expected rates between 0 and 1, both excluded")
