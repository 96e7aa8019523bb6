"""What one token writes into a memory that modifies itself: the key and the value of each layer."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InvalidConfig
from ..core.text import shown
from ..core.values import are_counts

Layers = tuple[Float[Tensor, "*batch heads outputs inputs"], ...]
"""A memory: a matrix, or the two of an MLP."""


@dataclass(frozen=True)
class Safeguards:
    """Limits on what a `SelfModifier` writes.

    Attributes:
        max_value: largest root mean square of an own value v̂; larger ones are scaled down. None is the equation, with
            which the memory of values can become infinite, since its own value is quadratic in it.
        max_grad_norm: largest norm of ∇ℓ of one token in one memory, over its layers; larger ones are scaled down.
        average: what of an exponential moving average (EMA) of the memories is kept at the end of a chunk, from 0 to 1.
            Keys, values, rates, own values and outputs are then read from the average at the start of the chunk.
        dropout: probability that a token is not written, in training mode.
        max_writes: most tokens of a sequence that are written, the first ones [count]. Afterwards nothing changes. (A
            choice by surprise within a chunk would let an output depend on later tokens.)
    Raises:
        InvalidConfig: a limit is out of its range.
    """

    max_value: float | None = 1.0
    max_grad_norm: float | None = None
    average: float | None = None
    dropout: float = 0.0
    max_writes: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_value", "max_grad_norm"):
            limit = getattr(self, name)
            if limit is not None and not (isinstance(limit, int | float) and limit > 0):
                raise InvalidConfig(f"{name} is {shown(limit)}; expected more than 0, or None")
        for name in ("average", "dropout"):
            share = getattr(self, name)
            if share is not None and not (isinstance(share, int | float) and 0 <= share < 1):
                raise InvalidConfig(f"{name} is {shown(share)}; expected a number from 0 to below 1")
        if self.max_writes not in (None, 0) and not are_counts(self.max_writes):
            raise InvalidConfig(f"max_writes is {shown(self.max_writes)}; expected an integer of 0 or more, or None")


class Writes(NamedTuple):
    """What tokens write into the layers of one memory.

    Attributes:
        inputs: of each layer, with norm 1.
        recalled: W z of each layer, before the write.
        values: v of each layer, for W ← W (α I − η z zᵀ) + η v zᵀ.
    """

    inputs: tuple[Float[Tensor, "*batch tokens inputs"], ...]
    recalled: tuple[Float[Tensor, "*batch tokens outputs"], ...]
    values: tuple[Float[Tensor, "*batch tokens outputs"], ...]


def initial_memory(inputs: int, outputs: int, depth: int, heads: int, expansion: int) -> nn.ParameterList:
    """The layers of a memory that returns its input where widths are equal, and zero otherwise."""
    if depth == 1:
        start = torch.eye(inputs) if inputs == outputs else torch.zeros(outputs, inputs)
        return nn.ParameterList([start.repeat(heads, 1, 1)])
    hidden = torch.empty(heads, expansion * inputs, inputs)
    for head in hidden:
        nn.init.xavier_uniform_(head)
    return nn.ParameterList([hidden, torch.zeros(heads, outputs, expansion * inputs)])


def recall(layers: Layers, inputs: Float[Tensor, "*batch tokens inputs"]) -> Tensor:
    """W z of a matrix; W₂ silu(W₁ z) of two layers, and z + that where widths are equal."""
    outputs = inputs @ layers[0].mT
    if len(layers) == 1:
        return outputs
    outputs = functional.silu(outputs) @ layers[1].mT
    return inputs + outputs if inputs.shape == outputs.shape else outputs


def writes_of(
    layers: Layers,
    keys: Float[Tensor, "*batch tokens keys"],
    values: Float[Tensor, "*batch tokens values"],
    objective: Literal["regression", "dot"],
    safeguards: Safeguards,
    rows: Float[Tensor, "outputs memories"] | None = None,
) -> Writes:
    """What pairs write into each layer of a memory, by its gradients at the given state.

    A layer with input z, output W z and gradient δ with respect to it has the own value W ẑ − s ‖z‖ δ, which is the
    value itself if the memory is a matrix. That is gradient descent with the step s = min(1, ‖e‖² / ‖∇‖²), where e is
    the gradient with respect to the output and ∇ the one with respect to all weights: a step that is as long as that of
    a matrix at most. The value of a regression is doubled, so W ẑ − 2 s ‖z‖ δ remains.

    Args:
        keys: with norm 1, or zero.
        rows: which rows of a matrix, 1 or 0, belong to which memory, if several memories are joined in it.
    """
    is_regression = objective == "regression"
    values = _limited(values, safeguards.max_value, rows, is_mean=True)
    before = keys @ layers[0].mT
    units, recalled, output = [keys], [before], before
    if len(layers) > 1:
        gate = before.sigmoid()
        hidden = before * gate
        units.append(functional.normalize(hidden, dim=-1))
        recalled.append(units[1] @ layers[1].mT)
        output = recall(layers, keys)
    error = output - values if is_regression else -values
    factor = 2.0 if is_regression else 1.0  # of the gradients, left out in the steps
    steps = [error]
    if len(layers) > 1:
        first = (error @ layers[1]) * gate * (1 + before * (1 - gate))
        steps = [first, error * hidden.norm(dim=-1, keepdim=True)]
        squared = torch.cat(steps, dim=-1).square().sum(-1, keepdim=True)
        largest = error.square().sum(-1, keepdim=True).clamp(min=torch.finfo(error.dtype).tiny)
        steps = [step / (squared / largest).clamp(min=1) for step in steps]
    if safeguards.max_grad_norm is not None:
        sizes = [step.shape[-1] for step in steps]
        together = _limited(torch.cat(steps, dim=-1), safeguards.max_grad_norm / factor, rows, is_mean=False)
        steps = list(together.split(sizes, dim=-1))
    own = [
        torch.sub(before, step, alpha=factor) if is_regression else -step
        for before, step in zip(recalled, steps, strict=True)
    ]
    return Writes(tuple(units), tuple(recalled), tuple(own))


@torch.no_grad()
def are_finite(rates: Float[Tensor, "*batch tokens"], writes: Iterable[Writes]) -> Bool[Tensor, "*batch tokens"]:
    """Whether all that a token writes is finite, in all memories."""
    norms = [part.norm(dim=-1) for write in writes for part in (*write.inputs, *write.values)]
    return torch.stack([rates, *norms]).isfinite().all(0)


def _limited(
    values: Tensor, limit: float | None, rows: Tensor | None, is_mean: bool
) -> Float[Tensor, "*batch tokens outputs"]:
    """Values of which the root of the sum of squares in each memory, or of their mean, is at most the limit."""
    if limit is None:
        return values
    # No half precision, whose squares are infinite early.
    squares = values.to(torch.promote_types(values.dtype, torch.float32)).square()
    rows = squares.new_ones(squares.shape[-1], 1) if rows is None else rows.to(squares)
    sums = squares @ (rows / rows.sum(0) if is_mean else rows)
    return values * ((sums / limit**2).clamp(min=1).rsqrt() @ rows.mT).to(values)
