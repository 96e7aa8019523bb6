"""Memories that modify themselves: their keys, values and rates come from memories that are written, too."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from .delta_recurrence import DeltaRecurrence
from .self_writes import Layers, Safeguards, Writes, initial_memory, recall, writes_of

Memories = dict[str, Layers]

MEMORIES = ("key", "value", "rate", "decay", "memory")
_FIRST_DECAY = 5.0  # logit of α before training: 0.993


class ModifierState(NamedTuple):
    """The state of a `SelfModifier`, one per sequence.

    Attributes:
        start: the memories at the start of the chunk.
        now: the memories after the last token.
        average: the exponential moving average of the memories, empty without one.
        stored: tokens that were written [count].
        position: tokens of the chunk so far [count].
    """

    start: Memories
    now: Memories
    average: Memories
    stored: Int[Tensor, " batch"]
    position: int

    def detach(self) -> "ModifierState":
        """The same state without a history of gradients, for a training on a stream that is longer than memory."""
        start, now, average = (
            {name: tuple(layer.detach() for layer in layers) for name, layers in memories.items()}
            for memories in (self.start, self.now, self.average)
        )
        return self._replace(start=start, now=now, average=average)


class SelfModifier(nn.Module):
    """A sequence layer of memories that produce their own keys, values, learning rates and decays.

        import torch
        from metaopt.nested import SelfModifier

        layer = SelfModifier(width=16, chunk=4)
        inputs = torch.randn(2, 10, 16)  # [batch, tokens, width]
        outputs, state = layer(inputs)
        first, state = layer(inputs[:, :7])  # in pieces, with the same result
        rest, state = layer(inputs[:, 7:], state)
        assert torch.cat([first, rest], 1).allclose(outputs, atol=1e-5)

    With the memories M_□, □ in {key, value, rate, decay, memory}, c the start of the chunk and t its tokens
    (Behrouz et al. 2025, arXiv:2512.24695, Eqs 83 to 93):

        q = W x / ‖W x‖,   k = M_key,c(x) / ‖M_key,c(x)‖,   v = M_value,c(x),   y = M_memory,t−1(q)
        α = sigmoid(a + M_decay,c(x)),   η = α/2 sigmoid(b + M_rate,c(x)),   v̂_□ = M_□,c(v)
        M_□,t = M_□,t−1 (α I − η k kᵀ) − η ∇ℓ(M_□,c; k, v̂_□)
        objective = regression:  ∇ℓ = (M k − 2 v̂) kᵀ
        objective = dot:         ∇ℓ = − v̂ kᵀ

    With η ≤ α/2, every update of a matrix by a chunk of one token is a contraction. W and all initial memories are
    parameters, so a network that contains the layer trains them through the writes.

    With two layers, M(z) = z + W₂ silu(W₁ z), without `z +` for rates and decays. Each layer follows the same equation
    with its own input in place of k, and its output minus the gradient with respect to it in place of v̂. With chunks of
    one token that is M ← α M − η ∇‖M(k) − v̂‖².

    Departs from the paper as printed; the page on nested learning gives the reasons:
        - regression has 2 v̂: as printed, what is stored for a key is v̂ / 2;
        - the decay leads to the initial memories and not to zero, unless `forget_to` is zero;
        - own values are limited, `Safeguards.max_value`;
        - with two layers, a step is as long as that of a matrix at most.

    A token whose norm or whose writes are not finite is not written, in its sequence alone. In the first case its
    output is not a number.

    Args:
        width: of inputs and outputs; `heads` divides it.
        depth: layers of each memory: 1 is a matrix.
        heads: independent sets of memories, each for its part of the width; q mixes all of it.
        expansion: width of a hidden layer over that of a head, with two layers.
        chunk: tokens that share keys, values, rates and gradients of one state of the memories [count].
        objective: the loss ℓ of a write.
        forget_to: where the decay leads.
        adaptive: whether keys, values, rates and decays adapt. Without, they are fixed projections, and v̂ = v: a Titan
            with the delta rule.
        safeguards: limits on writes.
    Raises:
        InvalidConfig: a size is out of its range, or there is no such objective or place to forget to.
    """

    def __init__(
        self,
        width: int,
        depth: Literal[1, 2] = 1,
        heads: int = 1,
        expansion: int = 2,
        chunk: int = 16,
        objective: Literal["regression", "dot"] = "regression",
        forget_to: Literal["initial", "zero"] = "initial",
        adaptive: bool = True,
        safeguards: Safeguards = Safeguards(),  # noqa: B008  # immutable
    ) -> None:
        super().__init__()
        sizes = {"width": width, "depth": depth, "heads": heads, "expansion": expansion, "chunk": chunk}
        if min(sizes.values()) < 1 or width % heads or depth > 2:
            raise InvalidConfig(f"sizes {sizes}; expected 1 or more, heads that divide the width, and depth 1 or 2")
        if objective not in ("regression", "dot"):
            raise InvalidConfig(f"objective is {shown(objective)}; expected regression or dot")
        if forget_to not in ("initial", "zero"):
            raise InvalidConfig(f"forget_to is {shown(forget_to)}; expected initial or zero")
        self.width, self.depth, self.heads, self.chunk = width, depth, heads, chunk
        self.objective, self.forget_to, self.adaptive, self.safeguards = objective, forget_to, adaptive, safeguards
        self.query = nn.Linear(width, width, bias=False)
        biases = {"rate": 0.0, "decay": _FIRST_DECAY}
        own = width // heads
        self.initial = nn.ModuleDict(
            {name: initial_memory(own, 1 if name in biases else own, depth, heads, expansion) for name in MEMORIES}
        )
        self.biases = nn.ParameterDict({name: torch.full((heads, 1, 1), bias) for name, bias in biases.items()})

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the memories that are written."""
        return MEMORIES if self.adaptive else ("memory",)

    def reset(self, batch: int) -> ModifierState:
        """The state with the initial memories.

        Args:
            batch: sequences [count].
        """
        memories = {
            name: tuple(layer.expand(batch, *layer.shape) for layer in self._initial(name)) for name in self.written
        }
        stored = torch.zeros(batch, dtype=torch.int64, device=self.query.weight.device)
        average = {} if self.safeguards.average is None else memories
        return ModifierState(memories, memories, average, stored, 0)

    def forward(
        self, inputs: Float[Tensor, "batch tokens width"], state: ModifierState | None = None
    ) -> tuple[Float[Tensor, "batch tokens width"], ModifierState]:
        """Read and write the memories, token after token. Returns outputs and the new state; the given one stays.

        Args:
            state: that of the tokens before; by default that of `reset`.
        Raises:
            LayoutMismatch: the inputs have another width, or the state belongs to another layer or to another number of
                sequences.
        """
        if inputs.dim() != 3 or inputs.shape[2] != self.width:
            raise LayoutMismatch(f"inputs of shape {tuple(inputs.shape)}; expected [batch, tokens, {self.width}]")
        state = self.reset(inputs.shape[0]) if state is None else state
        self._check(state, inputs.shape[0])
        outputs, done, tokens = [inputs[:, :0]], 0, inputs.shape[1]
        while done < tokens:
            count = min(self.chunk - state.position, tokens - done)
            part = inputs[:, done : done + count].to(self.query.weight)
            read, state = self._advance(part, state)
            outputs.append(read.to(inputs))
            done += count
        return torch.cat(outputs, dim=1), state

    def extra_repr(self) -> str:
        """The configuration."""
        names = ("width", "depth", "heads", "chunk", "objective", "forget_to", "adaptive", "safeguards")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def _advance(self, inputs: Tensor, state: ModifierState) -> tuple[Tensor, ModifierState]:
        """Read and write tokens of one chunk."""
        finite = inputs.square().sum(-1).isfinite()
        # Not a number times a gradient of zero is not a number, so it is replaced before it is used.
        inputs = torch.where(finite[..., None], inputs, 0.0)
        queries = functional.normalize(self._split(self.query(inputs)), dim=-1)
        keys, log_decays, rates, writes = self._plan(self._split(inputs), state)
        written = self._written(finite & _are_finite(log_decays, rates, *writes.values()), state.stored)
        kept = written[:, None]  # of all heads
        log_decays, rates = (torch.where(kept, part, 0.0) for part in (log_decays, rates))
        writes = {name: write.only(kept[..., None]) for name, write in writes.items()}

        by_key = DeltaRecurrence(torch.where(kept[..., None], keys, 0.0), log_decays, rates)
        now, read = {}, queries
        for name, write in writes.items():
            layers = []
            for number, (layer_inputs, values) in enumerate(zip(*write, strict=True)):
                # The key is the input of the first layer of all memories.
                recurrence = DeltaRecurrence(layer_inputs, log_decays, rates) if number else by_key
                base = self._forgets_to(name, number)
                change = state.now[name][number] - base
                steps = recurrence.steps(change, values - layer_inputs @ base.mT)
                layers.append(base + recurrence.last(change, steps))
                if name == "memory":
                    read = functional.silu(read) if number else read
                    read = read @ base.mT + recurrence.read(change, steps, read)
            now[name] = tuple(layers)
        if state.average:
            read = recall(state.average["memory"], queries)
        elif self.depth > 1:
            read = read + queries
        outputs = torch.where(finite[..., None], read.transpose(1, 2).flatten(2), torch.nan)
        return outputs, self._after(state, now, written)

    def _plan(self, inputs: Tensor, state: ModifierState) -> tuple[Tensor, Tensor, Tensor, dict[str, Writes]]:
        """Keys, log α, η and what each memory is to store, by the memories at the start of the chunk."""
        source = {name: self._initial(name) for name in MEMORIES} | (state.average or state.start)
        value = recall(source["value"], inputs)
        keys = functional.normalize(recall(source["key"], inputs), dim=-1)
        raw = {name: (recall(source[name], inputs) + bias).squeeze(-1) for name, bias in self.biases.items()}
        log_decays = functional.logsigmoid(raw["decay"])
        rates = log_decays.exp() / 2 * raw["rate"].sigmoid()
        writes = {}
        for name in self.written:
            own = recall(source[name], value) if self.adaptive else value
            writes[name] = writes_of(state.start[name], keys, own, self.objective, self.safeguards)
        return keys, log_decays, rates, writes

    def _written(self, finite: Bool[Tensor, "batch tokens"], stored: Tensor) -> Bool[Tensor, "batch tokens"]:
        """Which tokens are written."""
        written = finite
        if self.training and self.safeguards.dropout:
            written = written & (torch.rand(written.shape, device=written.device) >= self.safeguards.dropout)
        if self.safeguards.max_writes is not None:
            written = written & (stored.unsqueeze(1) + written.cumsum(1) <= self.safeguards.max_writes)
        return written

    def _after(self, state: ModifierState, now: Memories, written: Tensor) -> ModifierState:
        position, stored = state.position + written.shape[1], state.stored + written.sum(1)
        if position < self.chunk:
            return state._replace(now=now, stored=stored, position=position)
        kept = self.safeguards.average
        average = (
            {}
            if kept is None
            else {
                name: tuple(new.lerp(old, kept) for old, new in zip(state.average[name], layers, strict=True))
                for name, layers in now.items()
            }
        )
        return ModifierState(now, now, average, stored, 0)

    def _initial(self, name: str) -> Layers:
        return tuple(self.initial[name].parameters())

    def _forgets_to(self, name: str, number: int) -> Float[Tensor, "heads outputs inputs"]:
        layer = self._initial(name)[number]
        return layer if self.forget_to == "initial" else torch.zeros_like(layer)

    def _split(self, tokens: Tensor) -> Float[Tensor, "batch heads tokens head_width"]:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _check(self, state: ModifierState, batch: int) -> None:
        expected = {name: [(batch, *layer.shape) for layer in self._initial(name)] for name in self.written}
        averaged = expected if self.safeguards.average is not None else {}
        given = [
            {name: [tuple(layer.shape) for layer in layers] for name, layers in memories.items()}
            for memories in (state.start, state.now, state.average)
        ]
        if given != [expected, expected, averaged] or not 0 <= state.position < self.chunk:
            raise LayoutMismatch(
                f"a state at token {state.position} of a chunk, with memories of shapes {shown(given[1])} and averages "
                f"of shapes {shown(given[2])}; expected {shown(expected)} and {shown(averaged)}, as of `reset` of this "
                f"layer ({self.extra_repr()}) for these sequences"
            )


def _are_finite(log_decays: Tensor, rates: Tensor, *writes: Writes) -> Bool[Tensor, "batch tokens"]:
    """Whether all that a token writes is finite, in all heads and memories."""
    parts = [log_decays.unsqueeze(-1), rates.unsqueeze(-1), *(part for write in writes for part in sum(write, ()))]
    return torch.stack([part.square().sum(-1).isfinite().all(1) for part in parts]).all(0)
