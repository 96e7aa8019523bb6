"""Memories that modify themselves: their keys, values and rates come from memories that are written, too."""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidConfig, LayoutMismatch
from ..core.text import shown
from ..core.values import are_counts
from .delta_recurrence import DeltaRecurrence
from .joined_memories import JoinedMemories, Memories
from .self_writes import Safeguards, Writes, are_finite, initial_memory, recall, writes_of
from .state_shapes import check_state, shapes_of

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
        return self.map(
            lambda memories: {name: tuple(layer.detach() for layer in layers) for name, layers in memories.items()}
        )

    def map(self, function: Callable[[Memories], Memories]) -> "ModifierState":
        """The same state with other memories."""
        return self._replace(start=function(self.start), now=function(self.now), average=function(self.average))


class _Constants(NamedTuple):
    """What all chunks of a sequence share: the initial memories, where decays lead, and the biases of the rates."""

    initial: Memories
    origin: Memories
    biases: dict[str, Float[Tensor, "rows 1"]]
    rows: dict[str, Tensor | None]


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
        if not are_counts(*sizes.values()) or width % heads or depth > 2:
            raise InvalidConfig(
                f"sizes {shown(sizes)}; expected whole numbers of 1 or more, heads that divide the width, and depth "
                "1 or 2"
            )
        if objective not in ("regression", "dot"):
            raise InvalidConfig(f"objective is {shown(objective)}; expected regression or dot")
        if not isinstance(safeguards, Safeguards):
            raise InvalidConfig(f"safeguards is {shown(safeguards)}; expected `Safeguards(…)`")
        if forget_to not in ("initial", "zero"):
            raise InvalidConfig(f"forget_to is {shown(forget_to)}; expected initial or zero")
        self.width, self.depth, self.heads, self.chunk = width, depth, heads, chunk
        self.objective, self.forget_to, self.adaptive, self.safeguards = objective, forget_to, adaptive, safeguards
        self.query = nn.Linear(width, width, bias=False)
        biases = {"rate": 0.0, "decay": _FIRST_DECAY}
        own = width // heads
        self._joined = JoinedMemories({name: 1 if name in biases else own for name in MEMORIES}, heads)
        self.initial = nn.ModuleDict(
            {
                name: initial_memory(own, outputs, depth, heads, expansion)
                for name, outputs in self._joined.widths.items()
            }
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
        memories = self._initial(self.written, batch)
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
        finite = inputs.square().sum(-1).isfinite()
        # Not a number times a gradient of zero is not a number, so it is replaced before it is used.
        tokens = torch.where(finite[..., None], inputs, 0.0).to(self.query.weight)
        rows, queries = self._rows(tokens), functional.normalize(self._rows(self.query(tokens)), dim=-1)
        constants, joined = self._constants(inputs.shape[0]), state.map(self._joined.join)
        sizes, outputs = self._parts(inputs.shape[1], state.position), []
        for part in zip(rows.split(sizes, 1), queries.split(sizes, 1), finite.split(sizes, 1), strict=True):
            read, joined = self._advance(*part, joined, constants)
            outputs.append(read)
        read = torch.cat(outputs, dim=1).unflatten(0, (self.heads, -1)).movedim(0, 2).flatten(2)
        return torch.where(finite[..., None], read.to(inputs), torch.nan), joined.map(self._joined.separate)

    def extra_repr(self) -> str:
        """The configuration."""
        names = ("width", "depth", "heads", "chunk", "objective", "forget_to", "adaptive", "safeguards")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def _advance(
        self, inputs: Tensor, queries: Tensor, finite: Tensor, state: ModifierState, constants: _Constants
    ) -> tuple[Tensor, ModifierState]:
        """Read and write tokens of one chunk."""
        keys, log_decays, rates, writes = self._plan(inputs, state, constants)
        finite = finite & are_finite(log_decays + rates, writes.values()).unflatten(0, (self.heads, -1)).all(0)
        written = self._written(finite, state.stored)
        left_out = ~written.repeat(self.heads, 1)
        by_key = DeltaRecurrence(keys, log_decays, rates, left_out)
        now, read = {}, queries
        for names, write in writes.items():
            layers = []
            for number, (layer_inputs, recalled, values) in enumerate(zip(*write, strict=True)):
                # The key is the input of the first layer of all memories.
                recurrence = DeltaRecurrence(layer_inputs, log_decays, rates, left_out) if number else by_key
                before, origin = state.now[names][number], constants.origin[names][number]
                recalled = recalled if state.position == 0 else layer_inputs @ before.mT
                steps = recurrence.steps(recalled, origin, values)
                layers.append(recurrence.last(before, origin, steps))
                if "memory" in names:
                    part = slice(-self.width // self.heads, None) if "+" in names else slice(None)  # it is the last
                    read = functional.silu(read) if number else read
                    read = recurrence.read(before[:, part], origin[:, part], steps[..., part], read)
            now[names] = tuple(layers)
        if state.average:
            read = self._joined.recall(state.average, queries)["memory"]
        elif self.depth > 1:
            read = read + queries
        return read, self._after(state, now, written)

    def _plan(
        self, inputs: Tensor, state: ModifierState, constants: _Constants
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Writes]]:
        """Keys, log α, η and what each memory is to store, by the memories at the start of the chunk."""
        source = (state.average or state.start) if self.adaptive else constants.initial
        made = self._joined.recall(source, inputs)
        keys, value = functional.normalize(made["key"], dim=-1), made["value"]
        raw = {name: made[name].squeeze(-1) + bias for name, bias in constants.biases.items()}
        log_decays = functional.logsigmoid(raw["decay"])
        rates = log_decays.exp() / 2 * raw["rate"].sigmoid()
        writes = {}
        for names, layers in state.start.items():
            own = recall(source[names], value) if self.adaptive else value
            writes[names] = writes_of(layers, keys, own, self.objective, self.safeguards, constants.rows[names])
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

    def _initial(self, names: Iterable[str], batch: int) -> Memories:
        return {
            name: tuple(layer.expand(batch, *layer.shape) for layer in self.initial[name].parameters())
            for name in names
        }

    def _constants(self, batch: int) -> _Constants:
        initial, origin = self._initial(MEMORIES, batch), self._initial(self.written, 1)
        if self.forget_to == "zero":
            origin = {name: tuple(torch.zeros_like(layer) for layer in layers) for name, layers in origin.items()}
        biases = {name: bias.flatten().repeat_interleave(batch)[:, None] for name, bias in self.biases.items()}
        origin = self._joined.join(origin)
        rows = {names: self._joined.rows_of(names, self.query.weight) for names in origin}
        return _Constants(self._joined.join(initial), origin, biases, rows)

    def _parts(self, tokens: int, position: int) -> list[int]:
        """Sizes of the parts of some tokens that belong to one chunk each."""
        first = min(self.chunk - position, tokens)
        full, last = divmod(tokens - first, self.chunk)
        return [first, *[self.chunk] * full, *[last] * (last > 0)]

    def _rows(self, tokens: Tensor) -> Float[Tensor, "rows tokens head_width"]:
        """Each head of a sequence as a row of its own."""
        return tokens.unflatten(-1, (self.heads, -1)).movedim(2, 0).flatten(0, 1)

    def _check(self, state: ModifierState, batch: int) -> None:
        position = getattr(state, "position", None)
        is_valid = isinstance(position, int) and 0 <= position < self.chunk
        shapes = *shapes_of(self.reset(batch)[:-1]), position if is_valid else f"from 0 to below {self.chunk}"
        # Without `extra_repr`, which torch.compile cannot trace.
        source = f"as of `reset` of this layer (width={self.width}, depth={self.depth}, …) for these sequences"
        check_state(state, ModifierState, shapes, source)
